//! `silt demo` placeholder while compiling.
pub(crate) mod source;
pub(crate) async fn run(_args: crate::args::Demo, _out: &mut crate::out::Out) -> Result<crate::failure::Done, crate::failure::Failure> { Ok(crate::failure::Done::Well) }
