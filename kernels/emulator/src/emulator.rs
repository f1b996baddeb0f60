//! The emulator as a [`Driver`].

use crate::native::{Arena, Run, argument_bytes};
use crate::{gemm, source_lines};
use crossfix_kernels::cuda::{Address, Download, Driver, Gemm, Graph, Kernel, LaunchShape, Memory};
use crossfix_kernels::{Error, Result};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The order in which the threads of a block, and the blocks, run between two barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// By number.
    Forward,
    /// From the last to the first.
    Reverse,
    /// At random; the same seed gives the same order.
    Random(u64),
}

/// On which side of a buffer the guard page touches it. The other side has one too, up to a page
/// away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Guard {
    /// Behind: the first element past the end faults. (Buffers begin at multiples of 16 bytes; of
    /// the up to 15 bytes in between, writes are found when the launch ends.)
    #[default]
    After,
    /// Before: element -1 faults.
    Before,
}

/// How an [`Emulator`] runs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The order of threads.
    pub schedule: Schedule,
    /// Whether every access is checked, which finds races and is a few times slower.
    pub checked: bool,
    /// Where buffers lie.
    pub guard: Guard,
    /// How much device memory there is.
    pub memory_bytes: usize,
    /// After how much CPU time a launch counts as hanging.
    pub limit_s: u32,
    /// A kernel that is reported not to compile, to test the error.
    pub broken_kernel: Option<&'static str>,
    /// Ignores the dependencies of recorded nodes, to check that tests notice.
    pub forgets_order: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schedule: Schedule::Forward,
            checked: false,
            guard: Guard::After,
            memory_bytes: 4 << 30,
            limit_s: 120,
            broken_kernel: None,
            forgets_order: false,
        }
    }
}

/// A CUDA device emulated on the CPU.
pub struct Emulator(Arc<Machine>);

struct Machine {
    options: Options,
    arena: Arena,
    launches: AtomicU64,
    capture: Mutex<Option<Vec<Piece>>>,
    /// Uploads on the second queue. They arrive as late as allowed: when the queue waits for them.
    under_way: Mutex<Vec<(Address, Vec<u8>)>>,
}

/// A node of a recorded graph: commands that run one after the other.
#[derive(Default)]
struct Piece {
    after: Vec<usize>,
    commands: Vec<Command>,
}

/// Something enqueued.
enum Command {
    Launch {
        kernel: Kernel,
        shape: LaunchShape,
        /// The arguments' bytes, in words so that they are aligned.
        arguments: Vec<Vec<u64>>,
    },
    Gemm(Gemm),
    Copy {
        from: Address,
        to: Address,
        bytes: usize,
    },
    Zero {
        address: Address,
        bytes: usize,
    },
    Poison {
        address: Address,
        bytes: usize,
    },
}

impl Emulator {
    /// A device with its own memory.
    pub fn new(options: Options) -> Self {
        let before = options.guard == Guard::Before;
        Self(Arc::new(Machine {
            arena: Arena::new(options.memory_bytes, options.checked, before),
            options,
            launches: AtomicU64::new(0),
            capture: Mutex::new(None),
            under_way: Mutex::default(),
        }))
    }
}

fn error(call: impl Into<String>, cause: impl AsRef<str>) -> Error {
    Error::Cuda {
        call: call.into(),
        cause: source_lines::resolve(cause.as_ref()),
    }
}

impl Machine {
    fn capture(&self) -> MutexGuard<'_, Option<Vec<Piece>>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<(Address, Vec<u8>)>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    /// As for the driver's functions.
    unsafe fn enqueue(&self, command: Command) -> Result<()> {
        if let Some(pieces) = &mut *self.capture() {
            // All in one, where nobody begins pieces.
            if pieces.is_empty() {
                pieces.push(Piece::default());
            }
            let piece = pieces.last_mut().expect("there is one");
            piece.commands.push(command);
            return Ok(());
        }
        // SAFETY: passed on.
        unsafe { self.run(&command) }
    }

    fn holds(&self, call: &str, address: Address, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let found = self.arena.holds(address, bytes);
        found.map_err(|why| error(call, format!("{bytes} bytes at {why}")))
    }

    fn refuse_in_capture(&self, call: &str) -> Result<()> {
        match *self.capture() {
            None => Ok(()),
            Some(_) => Err(error(call, "not permitted while work is being recorded")),
        }
    }

    /// # Safety
    /// As for the driver's functions.
    unsafe fn run(&self, command: &Command) -> Result<()> {
        match command {
            Command::Launch {
                kernel,
                shape,
                arguments,
            } => {
                let pointers = arguments.iter().map(|a| a.as_ptr().cast_mut().cast());
                let mut pointers: Vec<*mut c_void> = pointers.collect();
                let (order, seed) = match self.options.schedule {
                    Schedule::Forward => (0, 0),
                    Schedule::Reverse => (1, 0),
                    Schedule::Random(seed) => (2, seed),
                };
                // Each launch has an order of its own.
                let launch = self.launches.fetch_add(1, Ordering::Relaxed);
                let run = Run {
                    grid: shape.grid,
                    block: shape.block,
                    shared_bytes: shape.shared_bytes,
                    order,
                    seed: seed.wrapping_mul(1_000_003).wrapping_add(launch),
                    checked: self.options.checked,
                    limit_s: self.options.limit_s,
                };
                // SAFETY: the arguments were copied by their sizes when enqueued.
                let ran = unsafe {
                    let (source, entry) = (kernel.source.name, kernel.entry);
                    self.arena.launch(source, entry, &run, &mut pointers)
                };
                ran.map_err(|why| error(kernel.entry, why))
            }
            Command::Gemm(gemm) => {
                // SAFETY: passed on.
                let ran = unsafe { gemm::run(&self.arena, gemm) };
                ran.map_err(|why| error("matrix product", why))
            }
            Command::Copy { from, to, bytes } => {
                self.holds("copy", *from, *bytes)?;
                self.holds("copy", *to, *bytes)?;
                // SAFETY: both ranges are live, checked just now.
                unsafe {
                    std::ptr::copy(*from as *const u8, *to as *mut u8, *bytes);
                    self.arena.mark_written(*to, *bytes);
                }
                Ok(())
            }
            Command::Zero { address, bytes } => {
                self.holds("fill", *address, *bytes)?;
                // SAFETY: the range is live, checked just now.
                unsafe {
                    std::ptr::write_bytes(*address as *mut u8, 0, *bytes);
                    self.arena.mark_written(*address, *bytes);
                }
                Ok(())
            }
            Command::Poison { address, bytes } => {
                self.holds("reuse", *address, *bytes)?;
                // SAFETY: the range is live, checked just now.
                unsafe { self.arena.poison(*address, *bytes) };
                Ok(())
            }
        }
    }
}

/// What was copied at once, and waits to be asked for.
struct Arrived(Vec<u8>);

impl Download for Arrived {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        Ok(self.0)
    }
}

/// Recorded pieces.
struct Recording {
    machine: Arc<Machine>,
    pieces: Vec<Piece>,
}

impl Recording {
    /// An order in which the pieces may run: as far as the schedule goes from their numbers.
    fn order(&self) -> Vec<usize> {
        let mut chance = match self.machine.options.schedule {
            Schedule::Forward => return (0..self.pieces.len()).collect(),
            Schedule::Reverse => None,
            // Each replay has an order of its own.
            Schedule::Random(seed) => {
                let launches = self.machine.launches.load(Ordering::Relaxed);
                Some(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ launches)
            }
        };
        let mut waits_for: Vec<usize> = self.pieces.iter().map(|p| p.after.len()).collect();
        let mut waiting = vec![Vec::new(); self.pieces.len()];
        for (number, piece) in self.pieces.iter().enumerate() {
            for before in &piece.after {
                waiting[*before].push(number);
            }
        }
        let is_ready = |number: &usize| waits_for[*number] == 0;
        let mut ready: Vec<usize> = (0..self.pieces.len()).filter(is_ready).collect();
        let mut order = Vec::with_capacity(self.pieces.len());
        while !ready.is_empty() {
            let at = match &mut chance {
                None => (0..ready.len())
                    .max_by_key(|at| ready[*at])
                    .expect("not empty"),
                Some(state) => {
                    // Knuth's linear congruential generator (MMIX); its high bits are good.
                    *state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (*state >> 33) as usize % ready.len()
                }
            };
            let number = ready.swap_remove(at);
            order.push(number);
            for later in &waiting[number] {
                waits_for[*later] -= 1;
                if waits_for[*later] == 0 {
                    ready.push(*later);
                }
            }
        }
        order
    }
}

impl Graph for Recording {
    fn replay(&self) -> Result<()> {
        for number in self.order() {
            for command in &self.pieces[number].commands {
                // SAFETY: promised when it was recorded; the memory lives as long as the recording.
                unsafe { self.machine.run(command)? };
            }
        }
        Ok(())
    }
}

impl Driver for Emulator {
    fn name(&self) -> String {
        format!("emulator, {:?}", self.0.options.schedule)
    }

    fn architecture(&self) -> u32 {
        90
    }

    fn allocate(&self, bytes: usize) -> Result<Option<Address>> {
        Ok(self.0.arena.allocate(bytes))
    }

    unsafe fn free(&self, address: Address, _bytes: usize) {
        self.0.arena.release(address);
    }

    fn memory(&self) -> Result<Memory> {
        let total = self.0.options.memory_bytes;
        let free = total.saturating_sub(self.0.arena.in_use());
        Ok(Memory { free, total })
    }

    fn size_class(&self, bytes: usize) -> usize {
        bytes
    }

    fn reused(&self, address: Address, bytes: usize) {
        // SAFETY: a pool hands out its own live memory. Were it not live, the command would say so;
        // there is nobody to tell here, and whoever uses the memory will be told.
        let _ = unsafe { self.0.enqueue(Command::Poison { address, bytes }) };
    }

    unsafe fn upload(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.0.refuse_in_capture("upload")?;
        self.0.holds("upload", to, bytes.len())?;
        // SAFETY: the range is live, checked just now.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len());
            self.0.arena.mark_written(to, bytes.len());
        }
        Ok(())
    }

    unsafe fn download(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.0.refuse_in_capture("download")?;
        self.0.holds("download", from, bytes.len())?;
        // SAFETY: the range is live, checked just now.
        unsafe {
            std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    unsafe fn upload_concurrently(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.0.refuse_in_capture("upload")?;
        self.0.holds("upload", to, bytes.len())?;
        // Whoever reads it before the fence finds neither the old values nor the new ones.
        // SAFETY: the range is live, checked just now.
        unsafe { self.0.arena.poison(to, bytes.len()) };
        self.0.under_way().push((to, bytes.to_vec()));
        Ok(())
    }

    fn await_uploads(&self) -> Result<()> {
        self.0.refuse_in_capture("waiting for uploads")?;
        for (to, bytes) in std::mem::take(&mut *self.0.under_way()) {
            // SAFETY: passed on.
            unsafe { self.upload(to, &bytes)? };
        }
        Ok(())
    }

    // All that is queued has run by the time somebody asks.
    fn release_to_uploads(&self, _: usize) -> Result<()> {
        self.0.refuse_in_capture("a fence")
    }

    fn await_release(&self, _: usize) -> Result<()> {
        self.0.refuse_in_capture("a fence")
    }

    unsafe fn begin_download(&self, from: Address, bytes: usize) -> Result<Box<dyn Download>> {
        let mut copy = vec![0; bytes];
        // SAFETY: passed on.
        unsafe { self.download(from, &mut copy)? };
        Ok(Box::new(Arrived(copy)))
    }

    unsafe fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        // SAFETY: passed on.
        unsafe { self.0.enqueue(Command::Copy { from, to, bytes }) }
    }

    unsafe fn fill_zero(&self, address: Address, bytes: usize) -> Result<()> {
        // SAFETY: passed on.
        unsafe { self.0.enqueue(Command::Zero { address, bytes }) }
    }

    unsafe fn launch(
        &self,
        kernel: &Kernel,
        shape: LaunchShape,
        arguments: &mut [*mut c_void],
    ) -> Result<()> {
        if self.0.options.broken_kernel == Some(kernel.entry) {
            return Err(Error::Compile {
                source_name: kernel.source.name,
                architecture: self.architecture(),
                log: "broken on request".into(),
            });
        }
        let sizes = argument_bytes(kernel.source.name, kernel.entry).ok_or_else(|| {
            error(
                kernel.entry,
                format!("{} has no such kernel", kernel.source.name),
            )
        })?;
        if sizes.len() != arguments.len() {
            let (takes, given) = (sizes.len(), arguments.len());
            let cause = format!("it takes {takes} arguments and was given {given}");
            return Err(error(kernel.entry, cause));
        }
        let copied = arguments.iter().zip(sizes).map(|(argument, bytes)| {
            let mut words = vec![0u64; bytes.div_ceil(8)];
            // SAFETY: the argument is a value of the parameter's type, hence of that size.
            unsafe {
                let from = argument.cast_const().cast::<u8>();
                std::ptr::copy_nonoverlapping(from, words.as_mut_ptr().cast(), *bytes);
            }
            words
        });
        let command = Command::Launch {
            kernel: *kernel,
            shape,
            arguments: copied.collect(),
        };
        // SAFETY: passed on.
        unsafe { self.0.enqueue(command) }
    }

    unsafe fn gemm(&self, gemm: &Gemm) -> Result<()> {
        // SAFETY: passed on.
        unsafe { self.0.enqueue(Command::Gemm(*gemm)) }
    }

    fn synchronise(&self) -> Result<()> {
        self.0.refuse_in_capture("synchronise")
    }

    fn begin_capture(&self) -> Result<()> {
        self.0.refuse_in_capture("recording")?;
        *self.0.capture() = Some(Vec::new());
        Ok(())
    }

    fn begin_node(&self, after: &[usize]) -> Result<()> {
        if let Some(pieces) = &mut *self.0.capture() {
            let after = if self.0.options.forgets_order {
                &[]
            } else {
                after
            };
            pieces.push(Piece {
                after: after.to_vec(),
                commands: Vec::new(),
            });
        }
        Ok(())
    }

    fn end_capture(&self) -> Result<Box<dyn Graph>> {
        let pieces = self.0.capture().take();
        let pieces = pieces.ok_or_else(|| error("end of recording", "nothing was begun"))?;
        Ok(Box::new(Recording {
            machine: self.0.clone(),
            pieces,
        }))
    }
}
