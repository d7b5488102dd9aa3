//! 128 bits as text: tags of values, ids of requests.

/// So many digits.
const DIGITS: usize = 32;

/// In hexadecimal, with all their zeros.
#[must_use]
pub(super) fn hexadecimal(number: u128) -> [u8; DIGITS] {
    let mut digits = [0; DIGITS];
    for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(number.to_be_bytes()) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    digits
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn they_are_what_fmt_makes_of_a_number(number: u128, shift in 0_u32..128) {
            let number = number >> shift;
            let expected = format!("{number:032x}");
            prop_assert_eq!(&hexadecimal(number)[..], expected.as_bytes());
        }
    }
}
