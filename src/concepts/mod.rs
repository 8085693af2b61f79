//! How the bus thinks, in eight short chapters. There is no code in here but the
//! examples, which are compiled and run with the tests.
//!
//! | chapter | what it answers |
//! |---|---|
//! | [`ordering`] | what comes before what, and what may overtake |
//! | [`cancellation`] | what happens to what is given up |
//! | [`backpressure`] | who waits when somebody is slow, and what is refused |
//! | [`supervision`] | how workers start, end and come back |
//! | [`observability`] | what operators see: spans, events, metrics, and their names |
//! | [`agents`] | two ways to reach an agent that is a program, and where agents are written down |
//! | [`embedding_in_c`] | the same bus without Rust |
//! | [`security`] | what is kept apart, and what is not |

#[cfg(feature = "agent")]
pub mod agents;
pub mod backpressure;
pub mod cancellation;
pub mod embedding_in_c;
pub mod observability;
pub mod ordering;
pub mod security;
pub mod supervision;
