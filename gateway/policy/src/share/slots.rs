//! The store's side of slots that gateways share: who may run how many requests at once.

/// What the store keeps of shared slots. `M` names a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotAccount<M> {
    /// The gateways that use them.
    pub holders: Vec<(M, SlotHolding)>,
}

/// What a gateway holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotHolding {
    /// Slots, taken or free.
    pub held: u64,
    /// Its requests that run or wait.
    pub demand: u64,
}

/// A gateway's report of slots, with what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotReport {
    /// The slots.
    pub slots: super::SharedSlots,
    /// Of all gateways together.
    pub limit: u64,
    /// Slots that it holds, taken or free.
    pub held: u64,
    /// Its requests that run or wait.
    pub demand: u64,
}

/// The store's answer to a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotGrant {
    /// Slots beside those that were held.
    pub granted: u64,
    /// The slots that the gateway should hold; those beyond are to be returned with the next report, as they become free.
    pub target: u64,
}

impl<M: Ord + Clone> SlotAccount<M> {
    /// Takes a gateway's report and grants slots. `is_live` names the gateways that hold what they were granted.
    pub fn refresh(&mut self, member: &M, is_live: impl Fn(&M) -> bool, report: &SlotReport) -> SlotGrant {
        self.holders.retain(|(holder, _)| holder != member && is_live(holder));
        let others = self
            .holders
            .iter()
            .fold(0u64, |sum, (_, holding)| sum.saturating_add(holding.held));
        let free = report.limit.saturating_sub(others);
        let own = SlotHolding {
            held: report.held,
            demand: report.demand,
        };
        self.holders.push((member.clone(), own));
        self.holders.sort_by(|(one, _), (other, _)| one.cmp(other));
        let demands: Vec<u64> = self.holders.iter().map(|(_, holding)| holding.demand).collect();
        let at = self
            .holders
            .iter()
            .position(|(holder, _)| holder == member)
            .unwrap_or(0);
        let target = max_min(report.limit, &demands)[at];
        let granted = target.min(free).saturating_sub(report.held);
        self.holders[at].1.held = report.held + granted;
        SlotGrant { granted, target }
    }

    /// Takes back what was just granted: the store may not know of all that is held.
    pub fn withhold(&mut self, member: &M, grant: &mut SlotGrant) {
        if let Some((_, holding)) = self.holders.iter_mut().find(|(holder, _)| holder == member) {
            holding.held = holding.held.saturating_sub(grant.granted);
        }
        grant.granted = 0;
    }
}

/// Divides slots by weighted demand: the smallest demands are met first, and what nobody asks for is divided equally. The sum
/// is the number of slots.
fn max_min(slots: u64, demands: &[u64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|at| (demands[*at], *at));
    let mut shares = vec![0; demands.len()];
    let mut left = slots;
    for (served, at) in order.iter().enumerate() {
        let others = (demands.len() - served) as u64;
        shares[*at] = demands[*at].min(left / others);
        left -= shares[*at];
    }
    let count = (demands.len() as u64).max(1);
    for (at, share) in shares.iter_mut().enumerate() {
        *share += left / count + u64::from((at as u64) < left % count);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// By definition (Bertsekas, Gallager, Data Networks, 6.5.2): no share can grow without one that is not larger
        /// shrinking, and all slots are given out.
        #[test]
        fn slots_are_divided_max_min_fairly(slots in 0..200u64, demands in prop::collection::vec(0..100u64, 1..7)) {
            let shares = max_min(slots, &demands);
            prop_assert_eq!(shares.iter().sum::<u64>(), slots);
            let most = shares.iter().max().copied().unwrap_or_default();
            for (share, demand) in shares.iter().zip(&demands) {
                prop_assert!(share >= demand || share + 1 >= most, "{demands:?}: {shares:?}");
            }
        }
    }
}
