//! The state of parsing: tokens, names and depth.

use super::ast::{Args, Body, CALLER, Expr, ExprKind, KWARGS, Name, SPECIAL_NAMES, VARARGS};
use super::error::{Error, Kind, Result};
use super::lexer::{Token, tokens};
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
    tokens: Vec<(Token, u32)>,
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
    pub(super) fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub(super) fn peek_second(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub(super) fn advance(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        token
    }

    pub(super) fn fail<T>(&self, message: impl Into<Box<str>>) -> Result<T> {
        Err(Error::new(Kind::Other, message).at(self.line()))
    }

    pub(super) fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.peek() {
            Token::Name(name) => format!("'{name}'"),
            Token::Str(text) => format!("{text:?}"),
            Token::Int(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::Op(op) => format!("'{op}'"),
            Token::End => "the end of the template".to_owned(),
            Token::PrintEnd => "'}}'".to_owned(),
            Token::TagEnd => "'%}'".to_owned(),
            Token::Text(_) | Token::PrintBegin | Token::TagBegin => "text".to_owned(),
        };
        self.fail(format!("expected {expected}, found {found}"))
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Token::Op(found) if *found == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if **found == *name)
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

    pub(super) fn expect(&mut self, token: &Token, named: &str) -> Result<()> {
        if self.peek() == token {
            self.advance();
            Ok(())
        } else {
            self.unexpected(named)
        }
    }

    pub(super) fn expect_name(&mut self) -> Result<Box<str>> {
        match self.peek() {
            Token::Name(_) => match self.advance() {
                Token::Name(name) => Ok(name),
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
    pub(super) fn args(&mut self) -> Result<Args> {
        self.expect_op("(")?;
        let mut args = Args::default();
        let mut is_first = true;
        while !self.is_op(")") {
            if !std::mem::take(&mut is_first) {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            let is_plain = args.more_positional.is_none() && args.more_named.is_none();
            let is_named =
                matches!(self.peek(), Token::Name(_)) && *self.peek_second() == Token::Op("=");
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
