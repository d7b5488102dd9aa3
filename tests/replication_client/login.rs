//! Who gets in, and what is said to those who do not.
