//! What comes out: a checked unit vector, and the identity of the model it belongs to.
//!
//! Vectors of different identities are in different spaces and must never be compared.

use std::{fmt, sync::Arc};

/// A vector of unit length.
pub type Vector = Arc<[f32]>;

/// One text's vector as a worker returns it.
#[derive(Clone, Debug)]
pub(super) struct Embedded {
    /// Unit length.
    pub vector: Vector,
    /// The tokens of the whole text where the vector stands for its beginning only.
    pub cut_from: Option<usize>,
}

/// Which model made a vector; stored with each, compared before any use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The model's name, such as `all-MiniLM-L6-v2`.
    pub name: String,
    /// `int8`, `f32`, `remote` or `fake`.
    pub precision: &'static str,
    /// The length of its vectors.
    pub dimensions: usize,
    /// What tells two builds of one name apart: the beginning of the BLAKE3 hash of the model and its tokenizer, or
    /// the provider's id of the model.
    pub revision: String,
}

impl fmt::Display for Identity {
    /// Stable: this is what the database stores.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}/{}", self.name, self.precision, self.dimensions, self.revision)
    }
}

/// Brings `values` to unit length, or says why they are no vector of `dimensions`.
pub(super) fn unit(mut values: Vec<f32>, dimensions: usize) -> Result<Vector, String> {
    if values.len() != dimensions {
        return Err(format!("a vector of {} numbers where the model has {dimensions}", values.len()));
    }
    let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if !length.is_finite() {
        return Err("a vector with a number that is not finite".to_owned());
    }
    // Below the smallest normal f32 nothing but noise is left of a direction.
    if length < f64::from(f32::MIN_POSITIVE) {
        return Err("a vector of zeros".to_owned());
    }
    for value in &mut values {
        #[expect(clippy::cast_possible_truncation, reason = "a component of a unit vector is within ±1")]
        let scaled = (f64::from(*value) / length) as f32;
        *value = scaled;
    }
    Ok(values.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_to_unit_length_and_refuses_what_is_no_vector() {
        assert_eq!(unit(vec![3.0, 4.0], 2).as_deref(), Ok([0.6, 0.8].as_slice()));
        for (values, reason) in [
            (vec![1.0], "a vector of 1 numbers where the model has 2"),
            (vec![0.0, 0.0], "a vector of zeros"),
            (vec![f32::NAN, 1.0], "a vector with a number that is not finite"),
            (vec![f32::INFINITY, 1.0], "a vector with a number that is not finite"),
        ] {
            assert_eq!(unit(values, 2), Err(reason.to_owned()));
        }
        // The squares of these overflow an f32.
        assert_eq!(unit(vec![0.0, f32::MAX], 2).as_deref(), Ok([0.0, 1.0].as_slice()));
    }

    #[test]
    fn an_identity_has_one_stable_spelling() {
        let identity =
            Identity { name: "m".to_owned(), precision: "int8", dimensions: 384, revision: "0123456789ab".to_owned() };
        assert_eq!(identity.to_string(), "m/int8/384/0123456789ab");
    }
}
