//! Parses statements.

use super::ast::{
    AssignmentTarget, Body, CALLER, Expr, ExprKind, For, KWARGS, Macro, Name, Stmt, VARARGS,
};
use super::error::{Error, ErrorKind, Result};
use super::lexer::TemplateToken;
use super::parser::Parser;
use std::sync::Arc;

impl Parser {
    /// Parses statements up to a tag with a name in `ends`. The name stays the next token.
    pub(super) fn body(&mut self, ends: &[&str]) -> Result<Body> {
        let mut body = Vec::new();
        loop {
            match self.peek() {
                TemplateToken::Text(_) => {
                    if let TemplateToken::Text(text) = self.advance() {
                        body.push(Stmt::Text(text));
                    }
                }
                TemplateToken::PrintBegin => {
                    self.advance();
                    let expr = self.tuple(true, &[])?;
                    self.expect(&TemplateToken::PrintEnd, "'}}'")?;
                    body.push(Stmt::Print(expr));
                }
                TemplateToken::TagBegin => {
                    self.advance();
                    if ends.iter().any(|end| self.is_name(end)) {
                        return Ok(body.into());
                    }
                    let statement = self.nested(Self::statement)?;
                    body.push(statement);
                    self.expect(&TemplateToken::TagEnd, "'%}'")?;
                }
                TemplateToken::End if ends.is_empty() => return Ok(body.into()),
                TemplateToken::End => {
                    return self.fail(format!("a block has no '{}'", ends[ends.len() - 1]));
                }
                _ => return self.unexpected("a statement"),
            }
        }
    }

    /// Parses the end of a tag, and the statements up to `ends`.
    fn block(&mut self, ends: &[&str]) -> Result<Body> {
        self.skip_op(":");
        self.expect(&TemplateToken::TagEnd, "'%}'")?;
        self.body(ends)
    }

    /// Parses as [`Self::block`] does up to the tag `end`, and skips its name.
    fn whole_block(&mut self, end: &str) -> Result<Body> {
        let body = self.block(&[end])?;
        self.advance();
        Ok(body)
    }

    fn statement(&mut self) -> Result<Stmt> {
        let line = self.line();
        let name = self.expect_name()?;
        match &*name {
            "for" => self.for_loop(),
            "if" => self.if_block(),
            "set" => self.set(),
            "with" => self.with(),
            "macro" => {
                let name = self.expect_name()?;
                self.macro_block(name, "endmacro").map(Stmt::Macro)
            }
            "call" => self.call_block(),
            "filter" => {
                let filters = self.filters(None, true)?;
                Ok(Stmt::Filter(filters, self.whole_block("endfilter")?))
            }
            "autoescape" => {
                let is_on = self.expression()?;
                Ok(Stmt::Autoescape(is_on, self.whole_block("endautoescape")?))
            }
            "generation" => Ok(Stmt::Scope(self.whole_block("endgeneration")?)),
            "block" => {
                self.expect_name()?;
                self.skip_name("scoped");
                self.skip_name("required");
                let body = self.whole_block("endblock")?;
                if matches!(self.peek(), TemplateToken::Name(_)) {
                    self.advance();
                }
                Ok(Stmt::Block(body))
            }
            "print" => {
                let mut parts = vec![self.expression()?];
                while self.skip_op(",") {
                    parts.push(self.expression()?);
                }
                self.expr(line, ExprKind::Concat(parts)).map(Stmt::Print)
            }
            "break" | "continue" if self.n_loops == 0 => {
                self.fail(format!("'{name}' outside of a loop"))
            }
            "break" => Ok(Stmt::Break),
            "continue" => Ok(Stmt::Continue),
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), TemplateToken::TagEnd | TemplateToken::End) {
                    self.advance();
                }
                Ok(Stmt::NoLoader(line))
            }
            name => Err(Error::new(ErrorKind::Other, format!("unknown tag '{name}'")).at(line)),
        }
    }

    fn for_loop(&mut self) -> Result<Stmt> {
        let target = self.target(&["in"])?;
        if !self.skip_name("in") {
            return self.unexpected("'in'");
        }
        let iter = self.tuple(false, &["recursive"])?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        self.n_loops += 1;
        let body = self.block(&["endfor", "else"])?;
        self.n_loops -= 1;
        let otherwise =
            if self.skip_name("else") { self.block(&["endfor"])? } else { Arc::new([]) };
        self.advance();
        Ok(Stmt::For(Arc::new(For { target, iter, test, recursive, body, otherwise })))
    }

    fn if_block(&mut self) -> Result<Stmt> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false, &[])?;
            let body = self.block(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            if self.skip_name("elif") {
                continue;
            }
            let otherwise =
                if self.skip_name("else") { self.block(&["endif"])? } else { Arc::new([]) };
            self.advance();
            return Ok(Stmt::If(branches, otherwise));
        }
    }

    fn set(&mut self) -> Result<Stmt> {
        let target = self.target(&[])?;
        if self.skip_op("=") {
            return Ok(Stmt::Set(target, self.tuple(true, &[])?));
        }
        let filters = if self.is_op("|") { Some(self.filters(None, false)?) } else { None };
        Ok(Stmt::SetBlock(target, filters, self.whole_block("endset")?))
    }

    fn with(&mut self) -> Result<Stmt> {
        let mut assignments = Vec::new();
        while !matches!(self.peek(), TemplateToken::TagEnd) {
            if !assignments.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(&[])?;
            self.expect_op("=")?;
            assignments.push((target, self.expression()?));
        }
        Ok(Stmt::With(assignments, self.whole_block("endwith")?))
    }

    fn call_block(&mut self) -> Result<Stmt> {
        let line = self.line();
        let n_loops = std::mem::take(&mut self.n_loops);
        let used = std::mem::take(&mut self.used);
        let parameters = if self.is_op("(") { self.parameters()? } else { Vec::new() };
        let outer = self.used.clone();
        let call = self.expression()?;
        if !matches!(&*call.kind, ExprKind::Call(..)) {
            return Err(Error::new(ErrorKind::Other, "expected a call").at(line));
        }
        self.used.clear();
        let body = self.whole_block("endcall")?;
        let code = self.finish_macro("caller".into(), parameters, body);
        self.used.extend(used);
        self.used.extend(outer);
        self.n_loops = n_loops;
        Ok(Stmt::Call(call, Arc::new(code)))
    }

    fn macro_block(&mut self, name: Box<str>, end: &str) -> Result<Arc<Macro>> {
        let n_loops = std::mem::take(&mut self.n_loops);
        let used = std::mem::take(&mut self.used);
        let parameters = self.parameters()?;
        let body = self.whole_block(end)?;
        let code = self.finish_macro(name, parameters, body);
        self.used = used;
        self.n_loops = n_loops;
        Ok(Arc::new(code))
    }

    fn finish_macro(
        &mut self,
        name: Box<str>,
        parameters: Vec<(Name, Option<Expr>)>,
        body: Body,
    ) -> Macro {
        let is_used = |special: Name| {
            self.used.contains(&special) && !parameters.iter().any(|(name, _)| *name == special)
        };
        Macro {
            uses_varargs: is_used(VARARGS),
            uses_kwargs: is_used(KWARGS),
            uses_caller: self.used.contains(&CALLER),
            place: self.name(&name),
            name,
            parameters,
            body,
        }
    }

    fn parameters(&mut self) -> Result<Vec<(Name, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Name, Option<Expr>)> = Vec::new();
        while !self.is_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            let name = self.assignable(&name)?;
            if parameters.iter().any(|(known, _)| *known == name) {
                return self.fail("a macro has two parameters of one name");
            }
            if self.skip_op("=") {
                let default = self.expression()?;
                parameters.push((name, Some(default)));
            } else if parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("non-default argument follows default argument");
            } else {
                parameters.push((name, None));
            }
        }
        self.expect_op(")")?;
        Ok(parameters)
    }

    fn assignable(&mut self, name: &str) -> Result<Name> {
        if matches!(name, "true" | "false" | "none" | "True" | "False" | "None") {
            return self.fail(format!("can't assign to '{name}'"));
        }
        Ok(self.name(name))
    }

    /// Parses one assignment target, or several with commas between them, in brackets or not.
    fn target(&mut self, ends: &[&str]) -> Result<AssignmentTarget> {
        let mut targets = Vec::new();
        let mut is_tuple = false;
        loop {
            let is_end = matches!(self.peek(), TemplateToken::TagEnd)
                || self.is_op(")")
                || self.is_op("=")
                || ends.iter().any(|end| self.is_name(end));
            if is_end && !targets.is_empty() {
                break;
            }
            let target = if self.skip_op("(") {
                let inner = self.nested(|parser| parser.target(&[]))?;
                self.expect_op(")")?;
                inner
            } else {
                let line = self.line();
                let name = self.expect_name()?;
                let name = self.assignable(&name)?;
                if self.skip_op(".") {
                    AssignmentTarget::Attribute(name, self.expect_name()?, line)
                } else {
                    AssignmentTarget::Name(name)
                }
            };
            targets.push(target);
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match targets.pop() {
            Some(target) if !is_tuple => Ok(target),
            Some(target) => {
                targets.push(target);
                Ok(AssignmentTarget::Tuple(targets))
            }
            None => self.unexpected("a name"),
        }
    }
}
