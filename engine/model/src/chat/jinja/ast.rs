//! The syntax tree of a template.

use std::sync::Arc;

/// The index of a name in [`super::Template`]'s table.
pub(super) type Name = u32;

/// The first names of every template's table.
pub(super) const SPECIAL_NAMES: [&str; 4] = ["loop", "varargs", "kwargs", "caller"];
pub(super) const LOOP: Name = 0;
pub(super) const VARARGS: Name = 1;
pub(super) const KWARGS: Name = 2;
pub(super) const CALLER: Name = 3;

pub(super) type Body = Arc<[Stmt]>;

#[derive(Debug)]
pub(super) enum Stmt {
    Text(Box<str>),
    Print(Expr),
    For(Arc<For>),
    /// Conditions with their bodies, in order; then the `else` body.
    If(Vec<(Expr, Body)>, Body),
    Set(AssignmentTarget, Expr),
    /// `{% set x %}…{% endset %}`, with the filters applied to the text.
    SetBlock(AssignmentTarget, Option<Expr>, Body),
    With(Vec<(AssignmentTarget, Expr)>, Body),
    Macro(Arc<Macro>),
    /// `{% call %}`: the call, and the macro that the called macro sees as `caller`.
    Call(Expr, Arc<Macro>),
    Filter(Expr, Body),
    Autoescape(Expr, Body),
    /// `{% block %}`. Without template inheritance, a block is rendered in place.
    Block(Body),
    Scope(Body),
    Break,
    Continue,
    /// A tag that needs a template loader, and its line. Chat templates have no loader.
    NoLoader(u32),
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: AssignmentTarget,
    pub(super) iter: Expr,
    pub(super) test: Option<Expr>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Box<str>,
    pub(super) place: Name,
    pub(super) parameters: Vec<(Name, Option<Expr>)>,
    pub(super) body: Body,
    pub(super) uses_varargs: bool,
    pub(super) uses_kwargs: bool,
    pub(super) uses_caller: bool,
}

/// The target of an assignment.
#[derive(Debug)]
pub(super) enum AssignmentTarget {
    Name(Name),
    /// An attribute of a namespace.
    Attribute(Name, Box<str>, u32),
    Tuple(Vec<AssignmentTarget>),
}

#[derive(Debug)]
pub(super) struct Expr {
    pub(super) line: u32,
    /// Nesting depth of the expression, which itself counts as one.
    pub(super) depth: u16,
    pub(super) kind: Box<ExprKind>,
}

#[derive(Debug)]
pub(super) enum ExprKind {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Box<str>),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attribute(Expr, Box<str>),
    Item(Expr, Expr),
    /// Start, stop and step, inside an [`ExprKind::Item`].
    Slice([Option<Expr>; 3]),
    Call(Expr, ArgumentExprs),
    /// Value, name and arguments. `None` is the text of a filter block.
    Filter(Option<Expr>, Box<str>, ArgumentExprs),
    Test(Expr, Box<str>, ArgumentExprs),
    Not(Expr),
    Negative(Expr),
    Positive(Expr),
    And(Expr, Expr),
    Or(Expr, Expr),
    Binary(Binary, Expr, Expr),
    Concat(Vec<Expr>),
    /// `a < b <= c`.
    Compare(Expr, Vec<(Comparison, Expr)>),
    /// Condition, value, and value of the `else` part.
    If(Expr, Expr, Option<Expr>),
}

#[derive(Debug, Default)]
pub(super) struct ArgumentExprs {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Box<str>, Expr)>,
    pub(super) more_positional: Option<Expr>,
    pub(super) more_named: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

impl ExprKind {
    /// The depth of the deepest operand.
    pub(super) fn depth(&self) -> u16 {
        let all = |exprs: &[Expr]| exprs.iter().map(|expr| expr.depth).max().unwrap_or(0);
        let any = |expr: &Option<Expr>| expr.as_ref().map_or(0, |expr| expr.depth);
        let args = |args: &ArgumentExprs| {
            let named = args.named.iter().map(|(_, expr)| expr.depth).max().unwrap_or(0);
            let more = any(&args.more_positional).max(any(&args.more_named));
            all(&args.positional).max(named).max(more)
        };
        match self {
            Self::None
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::Name(_) => 0,
            Self::List(items) | Self::Tuple(items) | Self::Concat(items) => all(items),
            Self::Dict(pairs) => {
                pairs.iter().map(|(key, value)| key.depth.max(value.depth)).max().unwrap_or(0)
            }
            Self::Slice(parts) => parts.iter().map(any).max().unwrap_or(0),
            Self::Attribute(of, _) | Self::Not(of) | Self::Negative(of) | Self::Positive(of) => {
                of.depth
            }
            Self::Item(a, b) | Self::And(a, b) | Self::Or(a, b) | Self::Binary(_, a, b) => {
                a.depth.max(b.depth)
            }
            Self::Call(of, more) | Self::Test(of, _, more) => of.depth.max(args(more)),
            Self::Filter(of, _, more) => any(of).max(args(more)),
            Self::Compare(first, more) => {
                more.iter().map(|(_, expr)| expr.depth).max().unwrap_or(0).max(first.depth)
            }
            Self::If(condition, value, otherwise) => {
                condition.depth.max(value.depth).max(any(otherwise))
            }
        }
    }
}
