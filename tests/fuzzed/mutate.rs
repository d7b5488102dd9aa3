//! Inputs made of others as libFuzzer makes them, without a look at what they reach.

use fastrand::Rng;

/// Bytes that decide something in many formats.
const TELLING: &[u8] = b"\x00\x01\x7f\x80\xff\n\"\\'{}[]%:.=&?/-#09aA";

/// An endless row of inputs, the same each time.
pub(crate) struct Mutations<'a> {
    inputs: [&'a [Vec<u8>]; 2],
    words: Vec<Vec<u8>>,
    longest: usize,
    random: Rng,
    input: Vec<u8>,
}

impl<'a> Mutations<'a> {
    /// Of these inputs and words; half of them of either, however many each has: what reaches much
    /// code is mostly refused.
    pub(crate) fn new(inputs: [&'a [Vec<u8>]; 2], words: Vec<Vec<u8>>, longest: usize) -> Self {
        Mutations { inputs, words, longest, random: Rng::with_seed(0x0715_7a1e), input: Vec::new() }
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> &[u8] {
        self.input.clone_from(pick(&self.inputs, &mut self.random));
        for _ in 0..self.random.u8(1..4) {
            self.mutate();
        }
        self.input.truncate(self.longest);
        &self.input
    }

    fn mutate(&mut self) {
        let (random, input) = (&mut self.random, &mut self.input);
        let at = random.usize(..=input.len());
        let until = (at + random.usize(..16)).min(input.len());
        match random.u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            1 if at < input.len() => input[at] = TELLING[random.usize(..TELLING.len())],
            2 => input.insert(at, TELLING[random.usize(..TELLING.len())]),
            3 => drop(input.drain(at..until)),
            4 => {
                let piece = input[at..until].to_vec();
                let to = random.usize(..=input.len());
                drop(input.splice(to..to, piece));
            }
            5 if !self.words.is_empty() => {
                let word = self.words[random.usize(..self.words.len())].clone();
                let end = if random.bool() { at } else { until };
                drop(input.splice(at..end, word));
            }
            6 => {
                let other = pick(&self.inputs, random);
                let from = random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.insert(at, random.u8(..)),
        }
    }
}

fn pick<'a>(inputs: &[&'a [Vec<u8>]; 2], random: &mut Rng) -> &'a Vec<u8> {
    let from = inputs[random.usize(..2)];
    &from[random.usize(..from.len())]
}

/// The words of a dictionary as libFuzzer reads it: `name="text"`, with `\\`, `\"` and `\xAB`.
pub(crate) fn words(dictionary: &str) -> Vec<Vec<u8>> {
    let lines = dictionary.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let text = line.split_once('"').and_then(|(_, text)| text.strip_suffix('"'));
            unescaped(text.unwrap_or_else(|| panic!("{line} is no word")))
        })
        .collect()
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut word = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, rest) {
            (b'\\', [b'x', a, b, after @ ..]) => {
                let digits = [*a, *b];
                let digits = str::from_utf8(&digits).unwrap();
                word.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) => {
                word.push(*escaped);
                rest = after;
            }
            _ => word.push(byte),
        }
    }
    word
}
