//! The state of parsing: tokens, names and depth.

use super::ast::{
    ArgumentExprs, Body, CALLER, Expr, ExprKind, KWARGS, Name, SPECIAL_NAMES, VARARGS,
};
use super::error::{Error, ErrorKind, Result};
use super::lexer::{TemplateToken, tokens};
use std::collections::{HashMap, HashSet};

/// Greatest nesting of expressions and of tags. Python's own parser fails at two hundred nested
/// brackets.
const MAX_DEPTH: u16 = 200;

/// Parses a template into its statements and its names.
pub(super) fn parse(source: &str) -> Result<(Body, Vec<Box<str>>)> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        names: Vec::new(),
        known: HashMap::new(),
        n_loops: 0,
        used: HashSet::new(),
    };
    for name in SPECIAL_NAMES {
        parser.name(name);
    }
    parser.used.clear();
    let body = parser.body(&[])?;
    Ok((body, parser.names))
}

pub(super) struct Parser {
    tokens: Vec<(TemplateToken, u32)>,
    at: usize,
    pub(super) depth: u16,
    names: Vec<Box<str>>,
    known: HashMap<Box<str>, Name>,
    /// Number of loops around the current statement: `break` needs one.
    pub(super) n_loops: usize,
    /// The special names that the current macro uses.
    pub(super) used: HashSet<Name>,
}

impl Parser {
    pub(super) fn peek(&self) -> &TemplateToken {
        &self.tokens[self.at].0
    }

    pub(super) fn peek_second(&self) -> &TemplateToken {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub(super) fn advance(&mut self) -> TemplateToken {
        let token = self.tokens[self.at].0.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub(super) fn fail<T>(&self, message: impl Into<Box<str>>) -> Result<T> {
        Err(Error::new(ErrorKind::Other, message).at(self.line()))
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            TemplateToken::Name(name) => format!("'{name}'"),
            TemplateToken::Str(text) => format!("{text:?}"),
            TemplateToken::Int(number) => number.to_string(),
            TemplateToken::Float(number) => number.to_string(),
            TemplateToken::Op(op) => format!("'{op}'"),
            TemplateToken::End => "the end of the template".to_owned(),
            TemplateToken::PrintEnd => "'}}'".to_owned(),
            TemplateToken::TagEnd => "'%}'".to_owned(),
            TemplateToken::Text(_) | TemplateToken::PrintBegin | TemplateToken::TagBegin => {
                "text".to_owned()
            }
        };
        self.fail(format!("expected {expected}, found {found}"))
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), TemplateToken::Op(found) if *found == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), TemplateToken::Name(found) if **found == *name)
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let is_there = self.is_op(op);
        if is_there {
            self.advance();
        }
        is_there
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let is_there = self.is_name(name);
        if is_there {
            self.advance();
        }
        is_there
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Result<()> {
        if self.skip_op(op) { Ok(()) } else { self.unexpected(&format!("'{op}'")) }
    }

    pub(super) fn expect(&mut self, token: &TemplateToken, named: &str) -> Result<()> {
        if self.peek() == token {
            self.advance();
            Ok(())
        } else {
            self.unexpected(named)
        }
    }

    pub(super) fn expect_name(&mut self) -> Result<Box<str>> {
        match self.peek() {
            TemplateToken::Name(_) => match self.advance() {
                TemplateToken::Name(name) => Ok(name),
                _ => self.unexpected("a name"),
            },
            _ => self.unexpected("a name"),
        }
    }

    /// Runs `parse` one nesting level deeper.
    pub(super) fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return self.fail("the template is nested too deeply");
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    pub(super) fn expr(&self, line: u32, kind: ExprKind) -> Result<Expr> {
        let depth = kind.depth() + 1;
        if depth > MAX_DEPTH {
            return self.fail("an expression is nested too deeply");
        }
        Ok(Expr { line, depth, kind: Box::new(kind) })
    }

    pub(super) fn name(&mut self, name: &str) -> Name {
        if let Some(&known) = self.known.get(name) {
            if matches!(known, VARARGS | KWARGS | CALLER) {
                self.used.insert(known);
            }
            return known;
        }
        let new = self.names.len() as Name;
        self.names.push(name.into());
        self.known.insert(name.into(), new);
        new
    }

    /// Parses the arguments of a call, brackets included.
    pub(super) fn args(&mut self) -> Result<ArgumentExprs> {
        self.expect_op("(")?;
        let mut args = ArgumentExprs::default();
        let mut is_first = true;
        while !self.is_op(")") {
            if !std::mem::take(&mut is_first) {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            let is_plain = args.more_positional.is_none() && args.more_named.is_none();
            let is_named = matches!(self.peek(), TemplateToken::Name(_))
                && *self.peek_second() == TemplateToken::Op("=");
            if self.is_op("*") && is_plain {
                self.advance();
                args.more_positional = Some(self.expression()?);
            } else if self.is_op("**") && args.more_named.is_none() {
                self.advance();
                args.more_named = Some(self.expression()?);
            } else if is_named && args.more_named.is_none() {
                let name = self.expect_name()?;
                self.advance();
                args.named.push((name, self.expression()?));
            } else if is_plain && args.named.is_empty() {
                args.positional.push(self.expression()?);
            } else {
                return self.fail("invalid syntax for function call expression");
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }
}
