//! What is volatile about contacts: who shakes their device, where and when. Kept for seconds, on one node for each
//! patch of the earth.

use std::sync::{Mutex, PoisonError};

use magpie_protocol::{Slot, UserId};

/// Two people find each other within this time, in milliseconds, ...
const NEAR_MS: u64 = 3_000;
/// ... and this far apart, in hundredths of a degree.
const NEAR_E2: i32 = 3;
/// Patches are this wide, in hundredths of a degree.
const PATCH_E2: i32 = 100;
/// People that are kept at a time.
const SHAKING_MAX: usize = 10_000;

#[derive(Clone, Copy)]
struct Shaking {
    user: UserId,
    latitude_e2: i32,
    longitude_e2: i32,
    at_ms: u64,
}

/// Who shakes now.
#[derive(Default)]
pub struct Shakes(Mutex<Vec<Shaking>>);

/// How far apart two longitudes are, also across the date line.
fn apart(a: i32, b: i32) -> i32 {
    let far = (a - b).rem_euclid(360 * 100);
    far.min(360 * 100 - far)
}

impl Shakes {
    /// The others who shake near here now. With `enter` this person is found by them, too.
    pub fn shake(&self, user: UserId, latitude_e2: i32, longitude_e2: i32, enter: bool, now_ms: u64) -> Vec<UserId> {
        let mut shaking = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shaking.retain(|other| now_ms.saturating_sub(other.at_ms) <= NEAR_MS && !(enter && other.user == user));
        if enter && shaking.len() < SHAKING_MAX {
            shaking.push(Shaking { user, latitude_e2, longitude_e2, at_ms: now_ms });
        }
        let near = |other: &&Shaking| {
            other.user != user
                && (other.latitude_e2 - latitude_e2).abs() <= NEAR_E2
                && apart(other.longitude_e2, longitude_e2) <= NEAR_E2
        };
        shaking.iter().filter(near).map(|other| other.user).collect()
    }
}

/// The slots whose nodes know who shakes near here: that of the patch, first, and those of its neighbours where the
/// place is at its edge.
pub fn slots_near(latitude_e2: i32, longitude_e2: i32) -> Vec<Slot> {
    let slot = |latitude: i32, longitude: i32| {
        let longitude = (longitude + 18_000).rem_euclid(36_000);
        Slot::of_text(&format!("shake {} {}", latitude.div_euclid(PATCH_E2), longitude.div_euclid(PATCH_E2)))
    };
    let mut slots = vec![slot(latitude_e2, longitude_e2)];
    for latitude in [-NEAR_E2, 0, NEAR_E2] {
        for longitude in [-NEAR_E2, 0, NEAR_E2] {
            let near = slot(latitude_e2 + latitude, longitude_e2 + longitude);
            if !slots.contains(&near) {
                slots.push(near);
            }
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(bits: u64) -> UserId {
        UserId::from_bits(bits)
    }

    #[test]
    fn those_near_at_the_same_moment_find_each_other_and_no_others() {
        let shakes = Shakes::default();
        assert!(shakes.shake(user(1), 100, 200, true, 1_000).is_empty());
        assert_eq!(shakes.shake(user(2), 102, 199, true, 2_000), [user(1)]);
        assert_eq!(shakes.shake(user(1), 100, 200, false, 2_500), [user(2)]);
        assert!(shakes.shake(user(3), 110, 200, true, 2_500).is_empty(), "too far");
        assert!(shakes.shake(user(4), 100, 200, true, 9_000).is_empty(), "too late");
        assert!(shakes.shake(user(5), 100, 200, false, 9_000) == [user(4)], "who only looks is not found");
        assert_eq!(shakes.shake(user(4), 100, 200, false, 9_000), []);
    }

    #[test]
    fn the_date_line_and_the_edges_of_patches_part_nobody() {
        let shakes = Shakes::default();
        shakes.shake(user(1), 0, 17_999, true, 0);
        assert_eq!(shakes.shake(user(2), 0, -17_999, true, 0), [user(1)]);
        let west = slots_near(0, 17_999);
        assert!(slots_near(0, -17_999).iter().any(|slot| west.contains(slot)));
        assert!(slots_near(50, 199).contains(&slots_near(50, 201)[0]));
    }
}
