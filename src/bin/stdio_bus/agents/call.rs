//! One call to one agent: started for it, and ended behind it.

use std::time::Duration;

use stdiobus::agent::{StdioOptions, StdioTransport};

use super::Failure;
use crate::signals::Signals;

/// Starts an agent, has it asked, and ends it. After a signal it is told to end at
/// once, so that it can end what it has started; a second one doesn't wait for that.
pub(super) fn with_agent(
    options: StdioOptions,
    ask: impl AsyncFnOnce(&StdioTransport) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // It goes with this process, however that ends.
    let options = stdiobus::program::tied(options);
    crate::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let agent = StdioTransport::open(options).await?;
        let call = async {
            let asked = ask(&agent).await;
            agent.close().await;
            asked
        };
        let signal = tokio::select! {
            result = call => return result,
            signal = signals.any() => signal,
        };
        tokio::select! {
            () = agent.close_within(Duration::ZERO) => {}
            _ = signals.next_after(Some(signal)) => {}
        }
        Err(Failure::Signal(signal))
    })
}
