//! Parses expressions, one function for each level of precedence.

use super::ast::{ArgumentExprs, Binary, Comparison, Expr, ExprKind};
use super::error::Result;
use super::lexer::TemplateToken;
use super::parser::Parser;

impl Parser {
    /// Parses one expression, or a tuple: several expressions with commas between them.
    pub(super) fn tuple(&mut self, with_condition: bool, ends: &[&str]) -> Result<Expr> {
        self.tuple_in(with_condition, ends, false)
    }

    fn tuple_in(&mut self, with_condition: bool, ends: &[&str], in_brackets: bool) -> Result<Expr> {
        let line = self.line();
        let mut items = Vec::new();
        let mut is_tuple = false;
        loop {
            let is_end = matches!(self.peek(), TemplateToken::PrintEnd | TemplateToken::TagEnd)
                || self.is_op(")")
                || ends.iter().any(|end| self.is_name(end));
            if is_end {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.nested(Self::or)? });
            if !self.skip_op(",") {
                break;
            }
            is_tuple = true;
        }
        match items.pop() {
            Some(item) if !is_tuple => Ok(item),
            None if !in_brackets => self.unexpected("an expression"),
            last => {
                items.extend(last);
                self.expr(line, ExprKind::Tuple(items))
            }
        }
    }

    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.nested(Self::condition)
    }

    fn condition(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut value = self.or()?;
        while self.skip_name("if") {
            let condition = self.or()?;
            let otherwise =
                if self.skip_name("else") { Some(self.nested(Self::condition)?) } else { None };
            value = self.expr(line, ExprKind::If(condition, value, otherwise))?;
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.and()?;
        while self.skip_name("or") {
            let right = self.and()?;
            left = self.expr(line, ExprKind::Or(left, right))?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.not()?;
        while self.skip_name("and") {
            let right = self.not()?;
            left = self.expr(line, ExprKind::And(left, right))?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expr> {
        let line = self.line();
        if self.skip_name("not") {
            let value = self.nested(Self::not)?;
            return self.expr(line, ExprKind::Not(value));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.sum()?;
        let mut more = Vec::new();
        loop {
            let is_not_in = self.is_name("not")
                && matches!(self.peek_second(), TemplateToken::Name(name) if **name == *"in");
            let op = match self.peek() {
                TemplateToken::Op("==") => Comparison::Eq,
                TemplateToken::Op("!=") => Comparison::Ne,
                TemplateToken::Op("<") => Comparison::Lt,
                TemplateToken::Op("<=") => Comparison::Le,
                TemplateToken::Op(">") => Comparison::Gt,
                TemplateToken::Op(">=") => Comparison::Ge,
                TemplateToken::Name(name) if **name == *"in" => Comparison::In,
                TemplateToken::Name(_) if is_not_in => Comparison::NotIn,
                _ => break,
            };
            if is_not_in {
                self.advance();
            }
            self.advance();
            more.push((op, self.sum()?));
        }
        if more.is_empty() { Ok(first) } else { self.expr(line, ExprKind::Compare(first, more)) }
    }

    fn binary_op(&self, ops: &[(&str, Binary)]) -> Option<Binary> {
        ops.iter().find(|(op, _)| self.is_op(op)).map(|(_, binary)| *binary)
    }

    fn sum(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.concat()?;
        while let Some(op) = self.binary_op(&[("+", Binary::Add), ("-", Binary::Sub)]) {
            self.advance();
            let right = self.concat()?;
            left = self.expr(line, ExprKind::Binary(op, left, right))?;
        }
        Ok(left)
    }

    fn concat(&mut self) -> Result<Expr> {
        let line = self.line();
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        self.expr(line, ExprKind::Concat(parts))
    }

    fn product(&mut self) -> Result<Expr> {
        let ops =
            [("*", Binary::Mul), ("/", Binary::Div), ("//", Binary::FloorDiv), ("%", Binary::Mod)];
        let line = self.line();
        let mut left = self.power()?;
        while let Some(op) = self.binary_op(&ops) {
            self.advance();
            let right = self.power()?;
            left = self.expr(line, ExprKind::Binary(op, left, right))?;
        }
        Ok(left)
    }

    /// Parses `**`, which groups from the left in Jinja, unlike in Python.
    fn power(&mut self) -> Result<Expr> {
        let line = self.line();
        let mut left = self.unary(true)?;
        while self.skip_op("**") {
            let right = self.unary(true)?;
            left = self.expr(line, ExprKind::Binary(Binary::Pow, left, right))?;
        }
        Ok(left)
    }

    fn unary(&mut self, with_filters: bool) -> Result<Expr> {
        let line = self.line();
        let value = if self.skip_op("-") {
            let value = self.nested(|parser| parser.unary(false))?;
            self.expr(line, ExprKind::Negative(value))?
        } else if self.skip_op("+") {
            let value = self.nested(|parser| parser.unary(false))?;
            self.expr(line, ExprKind::Positive(value))?
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        if with_filters { self.filters_and_tests(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Expr> {
        let line = self.line();
        let kind = match self.peek() {
            TemplateToken::Name(_) => match &*self.expect_name()? {
                "true" | "True" => ExprKind::Bool(true),
                "false" | "False" => ExprKind::Bool(false),
                "none" | "None" => ExprKind::None,
                name => ExprKind::Name(self.name(name)),
            },
            TemplateToken::Str(_) => {
                let mut text = String::new();
                while let TemplateToken::Str(part) = self.peek() {
                    text.push_str(part);
                    self.advance();
                }
                ExprKind::Str(text.into())
            }
            TemplateToken::Int(number) => {
                let number = *number;
                self.advance();
                ExprKind::Int(number)
            }
            TemplateToken::Float(number) => {
                let number = *number;
                self.advance();
                ExprKind::Float(number)
            }
            TemplateToken::Op("(") => {
                self.advance();
                let inner = self.nested(|parser| parser.tuple_in(true, &[], true))?;
                self.expect_op(")")?;
                return Ok(inner);
            }
            TemplateToken::Op("[") => {
                self.advance();
                let items = self.list_items("]", Self::expression)?;
                ExprKind::List(items)
            }
            TemplateToken::Op("{") => {
                self.advance();
                ExprKind::Dict(self.list_items("}", |parser| {
                    let key = parser.expression()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression()?))
                })?)
            }
            _ => return self.unexpected("an expression"),
        };
        self.expr(line, kind)
    }

    /// Parses items with commas between them, up to the bracket `end`.
    fn list_items<T>(
        &mut self,
        end: &str,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while !self.is_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.is_op(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        self.expect_op(end)?;
        Ok(items)
    }

    fn postfix(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            let line = self.line();
            if self.skip_op(".") {
                value = match self.peek() {
                    TemplateToken::Name(_) => {
                        let name = self.expect_name()?;
                        self.expr(line, ExprKind::Attribute(value, name))?
                    }
                    TemplateToken::Int(index) => {
                        let index = ExprKind::Int(*index);
                        self.advance();
                        let index = self.expr(line, index)?;
                        self.expr(line, ExprKind::Item(value, index))?
                    }
                    _ => return self.unexpected("a name or a number"),
                };
            } else if self.skip_op("[") {
                let mut items = self.list_items("]", Self::subscript)?;
                let item = match items.pop() {
                    Some(item) if items.is_empty() => item,
                    Some(item) => {
                        items.push(item);
                        self.expr(line, ExprKind::Tuple(items))?
                    }
                    None => return self.fail("expected subscript expression"),
                };
                value = self.expr(line, ExprKind::Item(value, item))?;
            } else if self.is_op("(") {
                let args = self.args()?;
                value = self.expr(line, ExprKind::Call(value, args))?;
            } else {
                return Ok(value);
            }
        }
    }

    fn subscript(&mut self) -> Result<Expr> {
        let line = self.line();
        let start = if self.is_op(":") { None } else { Some(self.expression()?) };
        if !self.skip_op(":") {
            return match start {
                Some(index) => Ok(index),
                None => self.unexpected("':'"),
            };
        }
        let part = |parser: &mut Self| {
            let is_end = [":", "]", ","].iter().any(|end| parser.is_op(end));
            if is_end { Ok(None) } else { parser.expression().map(Some) }
        };
        let stop = part(self)?;
        let step = if self.skip_op(":") { part(self)? } else { None };
        self.expr(line, ExprKind::Slice([start, stop, step]))
    }

    fn filters_and_tests(&mut self, mut value: Expr) -> Result<Expr> {
        loop {
            if self.is_op("|") {
                value = self.filters(Some(value), false)?;
            } else if self.skip_name("is") {
                value = self.test(value)?;
            } else if self.is_op("(") {
                let line = self.line();
                let args = self.args()?;
                value = self.expr(line, ExprKind::Call(value, args))?;
            } else {
                return Ok(value);
            }
        }
    }

    /// Parses a chain of filters. In a filter tag, no bar stands before the first filter.
    pub(super) fn filters(&mut self, value: Option<Expr>, mut starts_bare: bool) -> Result<Expr> {
        let mut value = value;
        loop {
            let line = self.line();
            if !std::mem::take(&mut starts_bare) && !self.skip_op("|") {
                return match value {
                    Some(value) => Ok(value),
                    None => self.unexpected("a filter"),
                };
            }
            let name = self.dotted_name()?;
            let args = if self.is_op("(") { self.args()? } else { ArgumentExprs::default() };
            value = Some(self.expr(line, ExprKind::Filter(value, name, args))?);
        }
    }

    fn dotted_name(&mut self) -> Result<Box<str>> {
        let mut name = self.expect_name()?.into_string();
        while self.skip_op(".") {
            name.push('.');
            name.push_str(&self.expect_name()?);
        }
        Ok(name.into())
    }

    fn test(&mut self, value: Expr) -> Result<Expr> {
        let line = self.line();
        let is_negated = self.skip_name("not");
        let name = self.dotted_name()?;
        let takes_argument = match self.peek() {
            TemplateToken::Name(word) => !matches!(&**word, "else" | "or" | "and"),
            TemplateToken::Str(_) | TemplateToken::Int(_) | TemplateToken::Float(_) => true,
            _ => self.is_op("[") || self.is_op("{"),
        };
        let args = if self.is_op("(") {
            self.args()?
        } else if takes_argument {
            if self.is_name("is") {
                return self.fail("you cannot chain multiple tests with is");
            }
            let argument = self.nested(Self::primary)?;
            let argument = self.postfix(argument)?;
            ArgumentExprs { positional: vec![argument], ..ArgumentExprs::default() }
        } else {
            ArgumentExprs::default()
        };
        let test = self.expr(line, ExprKind::Test(value, name, args))?;
        if is_negated { self.expr(line, ExprKind::Not(test)) } else { Ok(test) }
    }
}
