//! The bytes of everything that a node stores and that nodes say to each other, pinned: `tests/golden/v1.txt`.

pub(crate) mod file;
mod log;
mod nodes;
mod state;

use file::Golden;
use magpie_protocol::NodeId;

use crate::log::Position;

const ALICE: NodeId = NodeId::new(1, 1);
const BOB: NodeId = NodeId::new(2, 3);

const AT: Position = Position { term: 3, node: 0x0102, index: 0x0304_0506 };

#[test]
fn what_is_stored_and_sent_stays_as_it_is() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut goldens: Vec<Golden> = log::goldens();
    goldens.extend(state::goldens());
    goldens.extend(nodes::goldens());
    goldens.extend(crate::consensus::goldens());
    goldens.extend(crate::shard::outbox::goldens());
    goldens.extend(crate::shard::apply::goldens());
    file::check(&dir, crate::system::LEVEL, &goldens);
}
