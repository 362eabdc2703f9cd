//! A tournament tree of losers: the smallest of k cursors in log2(k) comparisons per step (Knuth, TAOCP vol. 3, 5.4.1).
//!
//! Neighbours: `super::Merge` owns the cursors and says which precedes. Invariants: 1. [`LoserTree::winner`] precedes all others after
//! [`LoserTree::build`] and after each [`LoserTree::replay`] that follows a change of the winner's cursor only.

/// The tree over cursors `0..n`.
#[derive(Debug)]
pub(crate) struct LoserTree {
    /// `losers[0]` is the winner, `losers[1..n]` the losers of the inner nodes.
    losers: Vec<usize>,
    cursors: usize,
}

const EMPTY: usize = usize::MAX;

impl LoserTree {
    pub(crate) fn new(cursors: usize) -> Self {
        Self { losers: vec![EMPTY; cursors.max(1)], cursors }
    }

    /// Plays all matches from the leaves up.
    pub(crate) fn build(&mut self, precedes: impl Fn(usize, usize) -> bool) {
        self.losers.fill(EMPTY);
        for cursor in 0..self.cursors {
            self.climb(cursor, &precedes);
        }
    }

    /// The cursor that precedes all others; `usize::MAX` without cursors.
    pub(crate) fn winner(&self) -> usize {
        self.losers.first().copied().unwrap_or(EMPTY)
    }

    /// Plays the winner's matches again after its cursor moved.
    pub(crate) fn replay(&mut self, precedes: impl Fn(usize, usize) -> bool) {
        let winner = self.winner();
        if winner != EMPTY {
            self.climb(winner, &precedes);
        }
    }

    /// The cursor that would win without the winner: the best of the losers on the winner's path.
    pub(crate) fn runner_up(&self, precedes: impl Fn(usize, usize) -> bool) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut node = (self.winner().checked_add(self.cursors)?) / 2;
        while node > 0 {
            if let Some(&loser) = self.losers.get(node).filter(|l| **l != EMPTY) {
                best = Some(best.map_or(loser, |b| if precedes(loser, b) { loser } else { b }));
            }
            node /= 2;
        }
        best
    }

    fn climb(&mut self, cursor: usize, precedes: &impl Fn(usize, usize) -> bool) {
        let mut champion = cursor;
        let mut node = (cursor + self.cursors) / 2;
        while node > 0 {
            if let Some(loser) = self.losers.get_mut(node) {
                if *loser == EMPTY {
                    // While building: the first to arrive waits here for its opponent.
                    *loser = champion;
                    return;
                }
                if precedes(*loser, champion) {
                    std::mem::swap(loser, &mut champion);
                }
            }
            node /= 2;
        }
        if let Some(top) = self.losers.first_mut() {
            *top = champion;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_any_number_of_lists() {
        for k in 0..20usize {
            let lists: Vec<Vec<usize>> = (0..k).map(|i| (0..(i * 7) % 5).map(|j| j * k + i).collect()).collect();
            let mut heads = vec![0; k];
            let mut tree = LoserTree::new(k);
            let at = |heads: &[usize], i: usize| lists[i].get(heads[i]).copied().unwrap_or(usize::MAX);
            tree.build(|a, b| (at(&heads, a), a) < (at(&heads, b), b));
            let mut merged = Vec::new();
            while k > 0 && at(&heads, tree.winner()) != usize::MAX {
                let winner = tree.winner();
                if let Some(second) = tree.runner_up(|a, b| (at(&heads, a), a) < (at(&heads, b), b)) {
                    let others = (0..k).filter(|i| *i != winner).min_by_key(|i| (at(&heads, *i), *i)).unwrap();
                    assert_eq!(second, others, "{k}");
                }
                merged.push(at(&heads, winner));
                heads[winner] += 1;
                tree.replay(|a, b| (at(&heads, a), a) < (at(&heads, b), b));
            }
            let mut expected: Vec<usize> = lists.into_iter().flatten().collect();
            expected.sort_unstable();
            assert_eq!(merged, expected, "{k}");
        }
    }
}
