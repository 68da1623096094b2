//! Plain values as bytes and back.

use aya::Pod;

/// The bytes of a value.
pub(crate) fn bytes<T: Pod>(value: &T) -> Vec<u8> {
    let start = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: `value` is live for the call, and a `Pod` is plain data of its size without uninitialised bytes.
    unsafe { std::slice::from_raw_parts(start, size_of::<T>()) }.to_vec()
}

/// The value that these bytes are; `None` when they are too many or too few.
pub(crate) fn value<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() != size_of::<T>() {
        return None;
    }
    // SAFETY: as many bytes as the value has, every pattern of which is a valid `Pod`; alignment is not assumed.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_whatever_their_alignment() {
        let mut bytes = vec![0];
        bytes.extend(self::bytes(&0x0102_0304_u32));
        assert_eq!(value::<u32>(&bytes[1..]), Some(0x0102_0304));
        assert_eq!(value::<u32>(&bytes), None);
    }
}
