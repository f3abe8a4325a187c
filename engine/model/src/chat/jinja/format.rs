//! Formatting of texts: `'%s' % x` and `'{}'.format(x)`.

mod braces;
mod percent;
mod spec;

pub(super) use braces::braces;
pub(super) use percent::percent;
