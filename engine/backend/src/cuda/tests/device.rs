//! The device over the emulated driver: copies, their order, recordings, and refused calls.
//!
//! The emulated driver runs work when the host waits, so a missing wait gives wrong bytes.

use super::*;
use crate::cuda::device::Device;
use crate::cuda::emulated;
use crate::cuda::memory::Buffer;

fn device() -> Arc<dyn Device> {
    emulated::open().expect("the emulation")
}

/// Bytes that differ between places and between seeds.
fn pattern(n: usize, seed: u32) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 13) as u8).collect()
}

#[test]
fn uploads_of_any_size_arrive_however_many_are_under_way() {
    let device = device();
    const N_BYTES: usize = 9 << 20; // more than two upload buffers
    let buffers: Vec<_> = (0..4)
        .map(|seed| {
            let buffer = Buffer::new(&device, "some bytes", N_BYTES).unwrap();
            // The host's bytes are dropped before the device has done any work.
            buffer.upload(0, &pattern(N_BYTES, seed)).unwrap();
            buffer.upload(N_BYTES - 5, &pattern(5, seed + 100)).unwrap();
            buffer
        })
        .collect();
    for (buffer, seed) in buffers.iter().zip(0..) {
        let mut expected = pattern(N_BYTES, seed);
        expected.splice(N_BYTES - 5.., pattern(5, seed + 100));
        assert!(buffer.download::<u8>(0, N_BYTES).unwrap() == expected, "buffer {seed}");
    }
}

#[test]
fn a_download_is_of_the_time_when_it_was_begun() {
    let device = device();
    let buffer = Buffer::new(&device, "some bytes", 100).unwrap();
    let metadata: Vec<_> = (0..20)
        .map(|seed| {
            buffer.upload(0, &pattern(100, seed)).unwrap();
            (seed, buffer.begin_download::<u8>(0, 100 - seed as usize).unwrap())
        })
        .collect();
    // A download that is dropped ends before its memory is used again.
    drop(buffer.begin_download::<u8>(0, 100).unwrap());
    // The downloads end in reverse order, on a thread that has never called the driver.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = Buffer::of(&device, "other bytes", &pattern(10, 7)).unwrap();
            assert_eq!(other.download::<u8>(0, 10).unwrap(), pattern(10, 7));
            for (seed, download) in metadata.into_iter().rev() {
                let n = 100 - seed as usize;
                assert_eq!(
                    buffer.end_download::<u8>(download, n).unwrap(),
                    pattern(100, seed)[..n]
                );
            }
        });
    });
}

#[test]
fn new_memory_is_zero_and_too_much_is_refused_by_name() {
    let device = device();
    let buffer = Buffer::new(&device, "some bytes", 5000).unwrap();
    buffer.upload(0, &[1; 5000]).unwrap();
    drop(buffer);
    let buffer = Buffer::new(&device, "some bytes", 5000).unwrap();
    assert_eq!(buffer.download::<u8>(0, 5000).unwrap(), [0; 5000]);
    let error = Buffer::new(&device, "a petabyte", 1 << 50).err().expect("too much").to_string();
    assert_eq!(error, format!("out of memory: a petabyte needs {} bytes", 1_u64 << 50));
    let memory = device.memory().unwrap();
    assert!(memory.free_bytes < memory.total_bytes);
    assert_eq!(memory.room_bytes(0.5), memory.free_bytes - memory.total_bytes / 2);
}

#[test]
fn what_cannot_be_recorded_is_refused_and_the_recording_stays_good() {
    let device = device();
    let buffer = Buffer::new(&device, "some bytes", 64).unwrap();
    device.begin_capture().unwrap();
    let refused = |error: String| assert!(error.contains("it cannot be recorded"), "{error}");
    refused(Buffer::new(&device, "more bytes", 64).err().expect("refused").to_string());
    refused(buffer.upload(0, &[1]).expect_err("refused").to_string());
    refused(buffer.download::<u8>(0, 1).expect_err("refused").to_string());
    refused(buffer.begin_download::<u8>(0, 1).err().expect("refused").to_string());
    let captured = device.end_capture().unwrap();
    // SAFETY: the recording is empty, so it uses no buffer.
    unsafe { device.replay(&captured) }.unwrap();
    // A buffer dropped during a recording is freed after it. Its size keeps other tests of this
    // process from hiding that.
    const LARGE: usize = 4 << 30;
    let large = Buffer::new(&device, "much untouched memory", LARGE).unwrap();
    let free_bytes = || device.memory().unwrap().free_bytes;
    let before = free_bytes();
    device.begin_capture().unwrap();
    drop(large);
    assert!(free_bytes() < before + LARGE / 2);
    device.end_capture().unwrap();
    assert!(free_bytes() > before + LARGE / 2);
}

#[test]
fn errors_have_the_names_of_the_driver() {
    let device = device();
    let error = device.end_capture().err().expect("none was begun").to_string();
    assert!(error.contains("ending a recording") && error.contains("CAPTURE_UNMATCHED"), "{error}");
    let description = device.description();
    assert!(description.starts_with("emulated on the CPU (cuda:0, "), "{description}");
    assert!(description.ends_with(" of 64.0 GiB free, driver 13.0)"), "{description}");
    let error = gpu_that_is_not_there().to_string();
    assert!(error.contains("there is no cuda:1: this machine has 1 GPU: cuda:0"), "{error}");
}

fn gpu_that_is_not_there() -> BackendError {
    let opened = gpu::open_with("emulated", galley_kernels_cu::emulated, "13.0", 1);
    opened.err().expect("there is one GPU")
}
