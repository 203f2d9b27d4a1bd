//! What people notice of a node that is killed: of one that is alone, here; of one of several, in [`cluster`].

mod cluster;

use std::time::{Duration, Instant};

use super::{Ran, chat::Crowd};
use crate::{figures::Spread, peers::Server, progress::Progress, workload::Workload};

/// Between two kills.
const PAUSE: Duration = Duration::from_secs(2);
/// A server that acknowledges nothing for so long is not coming back.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a node under load and starts it again, so many times.
pub(crate) async fn failover(work: &Workload, server: &mut Server, progress: &Progress) -> anyhow::Result<Ran> {
    if server.cluster().is_some() {
        return cluster::failover(work, server, progress).await;
    }
    let crowd = Crowd::gather(work, server, progress).await?;
    let ledger = crowd.ledger.clone();
    let mut gaps = Vec::new();
    let kills = async {
        for kill in 1..=work.kills {
            tokio::time::sleep(PAUSE).await;
            progress.say(format!("kill {kill} of {}", work.kills));
            ledger.begin();
            let killed = Instant::now();
            server.kill_and_restart()?;
            while ledger.so_far().0 == 0 {
                anyhow::ensure!(
                    killed.elapsed() < PATIENCE,
                    "nothing was acknowledged for a minute:\n{}",
                    server.log()
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            gaps.push(killed.elapsed().as_secs_f64() * 1000.0);
            ledger.end();
        }
        Ok(())
    };
    crowd.talk_during(work, kills).await??;
    let mut ran = Ran::default();
    ran.figures.accounts = crowd.ledger.accounts();
    ran.figures.kills = Some(work.kills);
    ran.figures.unavailable_ms = Spread::of(gaps);
    Ok(ran)
}
