//! placeholder until the image branch lands
