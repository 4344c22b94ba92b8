//! Measures of a ranking against judgements: pure functions.
//!
//! Gains are linear and discounts are `log2(place + 1)`; the ideal ranking is made of all judged documents, found or not. As in
//! the BEIR benchmark and `trec_eval`, so that figures can be compared with published ones.

use std::collections::HashMap;

/// How relevant documents are to one query; those not named are not relevant.
pub type Judgements = HashMap<String, f64>;

/// What is measured of one ranking, or the mean over many.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Quality {
    /// Gain, discounted by place, of the first ten against the best possible.
    pub ndcg_at_10: f64,
    /// The share of all relevant documents among the first ten.
    pub recall_at_10: f64,
    /// One over the place of the first relevant document among ten.
    pub mrr_at_10: f64,
    /// Whether one of the first five is relevant.
    pub hit_at_5: f64,
}

impl Quality {
    /// Of one ranking, best first, each document once.
    pub fn of(ranking: &[&str], judgements: &Judgements) -> Self {
        let gain = |document: &&str| judgements.get(*document).copied().unwrap_or(0.0);
        let first = ranking.iter().take(10).position(|document| gain(document) > 0.0);
        Self {
            ndcg_at_10: ndcg(ranking.iter().map(gain), judgements, 10),
            recall_at_10: recall(ranking.iter().map(gain), judgements, 10),
            mrr_at_10: first.map_or(0.0, |place| 1.0 / (as_float(place) + 1.0)),
            hit_at_5: f64::from(u8::from(first.is_some_and(|place| place < 5))),
        }
    }

    /// The mean; zeros for none.
    pub fn mean(of: &[Self]) -> Self {
        let count = as_float(of.len().max(1));
        let mean = |value: fn(&Self) -> f64| of.iter().map(value).sum::<f64>() / count;
        Self {
            ndcg_at_10: mean(|quality| quality.ndcg_at_10),
            recall_at_10: mean(|quality| quality.recall_at_10),
            mrr_at_10: mean(|quality| quality.mrr_at_10),
            hit_at_5: mean(|quality| quality.hit_at_5),
        }
    }
}

fn ndcg(gains: impl Iterator<Item = f64>, judgements: &Judgements, depth: usize) -> f64 {
    let mut ideal: Vec<f64> = judgements.values().copied().filter(|gain| *gain > 0.0).collect();
    ideal.sort_by(|a, b| b.total_cmp(a));
    let best = discounted(ideal.into_iter().take(depth));
    if best > 0.0 { discounted(gains.take(depth)) / best } else { 0.0 }
}

fn discounted(gains: impl Iterator<Item = f64>) -> f64 {
    gains.enumerate().map(|(place, gain)| gain / (as_float(place) + 2.0).log2()).sum()
}

fn recall(gains: impl Iterator<Item = f64>, judgements: &Judgements, depth: usize) -> f64 {
    let relevant = judgements.values().filter(|gain| **gain > 0.0).count();
    let found = gains.take(depth).filter(|gain| *gain > 0.0).count();
    if relevant == 0 { 0.0 } else { as_float(found) / as_float(relevant) }
}

/// The share of `wanted` that is in `found`; one when nothing is wanted.
pub fn overlap(found: &[i64], wanted: &[i64]) -> f64 {
    if wanted.is_empty() {
        return 1.0;
    }
    as_float(wanted.iter().filter(|id| found.contains(id)).count()) / as_float(wanted.len())
}

/// The value that `share` of the values do not exceed (nearest rank); zero for none. Sorts `values`.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length lies between 0 and it"
    )]
    let place = (as_float(values.len()) * share).ceil() as usize;
    values.get(place.max(1) - 1).copied().unwrap_or(0.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn as_float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgements(of: &[(&str, f64)]) -> Judgements {
        of.iter().map(|(document, gain)| ((*document).to_owned(), *gain)).collect()
    }

    fn near(one: f64, other: f64) {
        assert!((one - other).abs() < 1e-6, "{one} is not {other}");
    }

    #[test]
    fn a_ranking_worked_out_by_hand() {
        // Gains 0, 3, 1: dcg = 3 / log2 3 + 1 / log2 4 = 1.892789 + 0.5 = 2.392789.
        // Ideal 3, 2, 1: 3 + 2 / log2 3 + 0.5 = 3 + 1.261860 + 0.5 = 4.761860.
        let judged = judgements(&[("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 0.0)]);
        let quality = Quality::of(&["d", "a", "c"], &judged);
        near(quality.ndcg_at_10, 2.392_789_3 / 4.761_859_5);
        near(quality.recall_at_10, 2.0 / 3.0);
        near(quality.mrr_at_10, 0.5);
        near(quality.hit_at_5, 1.0);
    }

    #[test]
    fn the_ideal_counts_documents_that_were_not_found() {
        // One of two found, first: 1 / (1 + 1 / log2 3) = 0.613147.
        near(Quality::of(&["a"], &judgements(&[("a", 1.0), ("b", 1.0)])).ndcg_at_10, 0.613_147_2);
    }

    #[test]
    fn what_stands_below_the_tenth_place_counts_for_nothing() {
        let ranking: Vec<String> = (0..12).map(|nth| nth.to_string()).collect();
        let ranking: Vec<&str> = ranking.iter().map(String::as_str).collect();
        assert_eq!(Quality::of(&ranking, &judgements(&[("10", 1.0)])), Quality::default());
        let sixth = Quality::of(&ranking, &judgements(&[("5", 1.0)]));
        near(sixth.mrr_at_10, 1.0 / 6.0);
        near(sixth.hit_at_5, 0.0);
        near(sixth.ndcg_at_10, 1.0 / 7.0_f64.log2());
    }

    #[test]
    fn a_perfect_ranking_is_one_and_an_empty_one_zero() {
        let judged = judgements(&[("a", 2.0), ("b", 1.0)]);
        let one = Quality { ndcg_at_10: 1.0, recall_at_10: 1.0, mrr_at_10: 1.0, hit_at_5: 1.0 };
        assert_eq!(Quality::of(&["a", "b"], &judged), one);
        assert_eq!(Quality::of(&[], &judged), Quality::default());
        near(Quality::mean(&[one, Quality::default()]).ndcg_at_10, 0.5);
        assert_eq!(Quality::mean(&[]), Quality::default());
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut values = vec![4.0, 1.0, 3.0, 2.0];
        near(percentile(&mut values, 0.5), 2.0);
        near(percentile(&mut values, 0.95), 4.0);
        near(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn overlap_is_the_share_of_what_was_wanted() {
        near(overlap(&[1, 2, 9], &[1, 2, 3, 4]), 0.5);
        near(overlap(&[], &[]), 1.0);
    }
}
