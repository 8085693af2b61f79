//! One call to one agent: started for it, and ended behind it.

use stdiobus::agent::{StdioOptions, StdioTransport};

use super::Failure;
use crate::signals::Signals;

/// Starts an agent, has it asked, and ends it. A signal ends it at once.
pub(super) fn with_agent(
    options: StdioOptions,
    ask: impl AsyncFnOnce(&StdioTransport) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // It goes with this process, however that ends.
    let options = stdiobus::program::tied(options);
    crate::runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let call = async {
            let agent = StdioTransport::open(options).await?;
            let asked = ask(&agent).await;
            agent.close().await;
            asked
        };
        tokio::select! {
            result = call => result,
            signal = signals.next() => Err(Failure::Signal(signal)),
        }
    })
}
