//! The C++ side: memory with guard pages, and launches.

use std::ffi::{CString, c_char, c_int, c_void};

#[repr(C)]
struct Launch {
    source: *const c_char,
    entry: *const c_char,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    order: u32,
    seed: u64,
    checked: u32,
    limit_s: u32,
}

unsafe extern "C" {
    fn crossfix_arena_new(limit: usize, shadow: c_int, guard_before: c_int) -> *mut c_void;
    fn crossfix_arena_drop(arena: *mut c_void);
    fn crossfix_arena_allocate(arena: *mut c_void, bytes: usize) -> *mut c_void;
    fn crossfix_arena_release(arena: *mut c_void, address: *mut c_void);
    fn crossfix_arena_poison(arena: *mut c_void, address: *mut c_void, bytes: usize);
    fn crossfix_arena_mark_written(arena: *mut c_void, address: *const c_void, bytes: usize);
    fn crossfix_arena_in_use(arena: *const c_void) -> usize;
    fn crossfix_arena_holds(
        arena: *const c_void,
        address: *const c_void,
        bytes: usize,
        message: *mut c_char,
        capacity: usize,
    ) -> c_int;
    fn crossfix_argument_bytes(
        source: *const c_char,
        entry: *const c_char,
        bytes: *mut *const usize,
    ) -> isize;
    fn crossfix_launch(
        arena: *mut c_void,
        launch: *const Launch,
        arguments: *mut *mut c_void,
        message: *mut c_char,
        capacity: usize,
    ) -> c_int;
}

/// How a kernel is run.
pub struct Run {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    /// 0 forward, 1 reverse, 2 random.
    pub order: u32,
    pub seed: u64,
    pub checked: bool,
    pub limit_s: u32,
}

/// Device memory.
pub struct Arena(*mut c_void);

// SAFETY: the C++ side guards its tables with a mutex.
unsafe impl Send for Arena {}
// SAFETY: as above; the bytes themselves are ordered by whoever enqueues work, as on a GPU.
unsafe impl Sync for Arena {}

impl Arena {
    pub fn new(limit: usize, shadow: bool, guard_before: bool) -> Self {
        // SAFETY: plain values.
        Self(unsafe { crossfix_arena_new(limit, shadow.into(), guard_before.into()) })
    }

    pub fn allocate(&self, bytes: usize) -> Option<u64> {
        // SAFETY: the arena lives as long as self.
        let address = unsafe { crossfix_arena_allocate(self.0, bytes) };
        (!address.is_null()).then_some(address as u64)
    }

    pub fn release(&self, address: u64) {
        // SAFETY: the arena lives; it ignores what is not a live buffer of its own.
        unsafe { crossfix_arena_release(self.0, address as *mut c_void) }
    }

    /// # Safety
    /// The bytes lie in a live buffer.
    pub unsafe fn poison(&self, address: u64, bytes: usize) {
        // SAFETY: passed on.
        unsafe { crossfix_arena_poison(self.0, address as *mut c_void, bytes) }
    }

    /// # Safety
    /// The bytes lie in a live buffer.
    pub unsafe fn mark_written(&self, address: u64, bytes: usize) {
        // SAFETY: passed on.
        unsafe { crossfix_arena_mark_written(self.0, address as *const c_void, bytes) }
    }

    pub fn in_use(&self) -> usize {
        // SAFETY: the arena lives as long as self.
        unsafe { crossfix_arena_in_use(self.0) }
    }

    /// Whether the bytes lie in one live buffer; else what lies there.
    pub fn holds(&self, address: u64, bytes: usize) -> Result<(), String> {
        let mut message = [0u8; 512];
        // SAFETY: the message has the room it says; the address is only looked up.
        let holds = unsafe {
            let place = message.as_mut_ptr().cast();
            crossfix_arena_holds(
                self.0,
                address as *const c_void,
                bytes,
                place,
                message.len(),
            )
        };
        if holds != 0 {
            Ok(())
        } else {
            Err(text(&message))
        }
    }

    /// # Safety
    /// `arguments` point at values of the kernel's parameter types, in order.
    pub unsafe fn launch(
        &self,
        source: &str,
        entry: &str,
        run: &Run,
        arguments: &mut [*mut c_void],
    ) -> Result<(), String> {
        let (source, entry) = (c_string(source), c_string(entry));
        let launch = Launch {
            source: source.as_ptr(),
            entry: entry.as_ptr(),
            grid: run.grid,
            block: run.block,
            shared_bytes: run.shared_bytes,
            order: run.order,
            seed: run.seed,
            checked: run.checked.into(),
            limit_s: run.limit_s,
        };
        let mut message = [0u8; 2048];
        // SAFETY: all pointers outlive the call; the arguments are the caller's promise. Whatever
        // else the kernel touches is caught by guard pages or is the reason for the launch.
        let failed = unsafe {
            let place = message.as_mut_ptr().cast();
            let arguments = arguments.as_mut_ptr();
            crossfix_launch(self.0, &raw const launch, arguments, place, message.len())
        };
        if failed == 0 {
            Ok(())
        } else {
            Err(text(&message))
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: made by `new`, dropped once.
        unsafe { crossfix_arena_drop(self.0) }
    }
}

/// The sizes of a kernel's arguments in bytes; `None` when there is no such kernel.
pub fn argument_bytes(source: &str, entry: &str) -> Option<&'static [usize]> {
    let (source, entry) = (c_string(source), c_string(entry));
    let mut bytes = std::ptr::null();
    // SAFETY: the strings outlive the call, and the table it returns is static.
    unsafe {
        let count = crossfix_argument_bytes(source.as_ptr(), entry.as_ptr(), &raw mut bytes);
        let count = usize::try_from(count).ok()?;
        Some(std::slice::from_raw_parts(bytes, count))
    }
}

fn c_string(name: &str) -> CString {
    CString::new(name).expect("kernel names hold no zero byte")
}

fn text(message: &[u8]) -> String {
    let end = message
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(message.len());
    String::from_utf8_lossy(&message[..end]).into_owned()
}
