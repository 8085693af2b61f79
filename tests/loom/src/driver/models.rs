//! The models, one module for each file they are about.

pub(crate) mod budget;
pub(crate) mod mailbox;
pub(crate) mod wake;
