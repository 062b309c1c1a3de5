//! Choices that can be repeated from a seed (splitmix64).

/// A sequence of choices.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// One of `weighted`, each as likely as its weight says.
    pub fn choose<T: Copy>(&mut self, weighted: &[(u64, T)]) -> Option<T> {
        let total: u64 = weighted.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(total.max(1));
        for &(weight, one) in weighted {
            if at < weight {
                return Some(one);
            }
            at -= weight;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_kept_and_nothing_is_chosen_from_nothing() {
        let mut dice = Dice::new(1);
        let mut counts = [0_u32; 2];
        for _ in 0..10_000 {
            counts[dice.choose(&[(1, 0_usize), (9, 1)]).expect("one of two")] += 1;
        }
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
        assert_eq!(dice.choose::<u8>(&[]), None);
    }
}
