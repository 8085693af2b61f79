//! What a bell can be, as in the library.

#![allow(dead_code)] // models have a bus

use crate::native::RawBus;

pub(crate) enum Bell<'a> {
    Bus(&'a RawBus),
    Call(Box<dyn Fn() + Send + Sync>),
}
