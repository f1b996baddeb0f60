//! Nodes of a recorded graph with their dependencies.

use super::{Context, failed};
use crate::error::Result;
use cudarc::driver::sys;

/// The nodes recorded so far.
#[derive(Default)]
pub struct GraphNodes {
    /// The last CUDA graph nodes of each of our nodes.
    nodes: Vec<Vec<sys::CUgraphNode>>,
    /// Whether one is under way.
    is_begun: bool,
}

// SAFETY: nodes are handles into the graph being recorded; the driver locks it.
unsafe impl Send for GraphNodes {}

/// Whether the driver supports it; before CUDA 12.3 the order of the recording is kept.
fn can_order() -> bool {
    let symbols: [&[u8]; 2] = [
        b"cuStreamGetCaptureInfo_v3\0",
        b"cuStreamUpdateCaptureDependencies_v2\0",
    ];
    // SAFETY: only looks the symbols up; nothing is called through them.
    let has = |symbol| unsafe { sys::culib().get::<*const ()>(symbol) }.is_ok();
    symbols.into_iter().all(has)
}

impl GraphNodes {
    /// At the begin of a recording.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// What is recorded next depends on these nodes. The context is current.
    pub fn begin(&mut self, context: &Context, after: &[usize]) -> Result<()> {
        if !can_order() {
            return Ok(());
        }
        self.end(context)?;
        self.is_begun = true;
        let of_dependencies = after.iter().flat_map(|node| &self.nodes[*node]);
        let mut nodes: Vec<_> = of_dependencies.copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        come_after(context, &mut nodes)
    }

    /// Makes the end of the recording depend on all nodes.
    pub fn finish(&mut self, context: &Context) -> Result<()> {
        if !self.is_begun {
            return Ok(());
        }
        self.end(context)?;
        let mut nodes = self.nodes.concat();
        nodes.sort_unstable();
        nodes.dedup();
        come_after(context, &mut nodes)
    }

    /// Stores the CUDA graph nodes of the current node.
    fn end(&mut self, context: &Context) -> Result<()> {
        if self.is_begun {
            self.nodes.push(last_nodes(context)?);
            self.is_begun = false;
        }
        Ok(())
    }
}

/// The CUDA graph nodes on which the next recorded work would depend.
fn last_nodes(context: &Context) -> Result<Vec<sys::CUgraphNode>> {
    let mut status = sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
    let (mut nodes, mut edges, mut count) = (std::ptr::null(), std::ptr::null(), 0);
    // SAFETY: the stream is alive; the places are of the types asked for, and what is not asked
    // for may be null.
    unsafe {
        sys::cuStreamGetCaptureInfo_v3(
            context.stream,
            &raw mut status,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &raw mut nodes,
            &raw mut edges,
            &raw mut count,
        )
    }
    .result()
    .map_err(failed("cuStreamGetCaptureInfo"))?;
    if count == 0 || nodes.is_null() {
        return Ok(Vec::new());
    }
    // SAFETY: as many nodes as it said, valid until the next call that concerns the stream.
    Ok(unsafe { std::slice::from_raw_parts(nodes, count) }.to_vec())
}

fn come_after(context: &Context, nodes: &mut [sys::CUgraphNode]) -> Result<()> {
    let set = sys::CUstreamUpdateCaptureDependencies_flags::CU_STREAM_SET_CAPTURE_DEPENDENCIES;
    // SAFETY: the stream is being captured; the nodes are of its graph.
    unsafe {
        sys::cuStreamUpdateCaptureDependencies_v2(
            context.stream,
            nodes.as_mut_ptr(),
            std::ptr::null(),
            nodes.len(),
            set as u32,
        )
    }
    .result()
    .map_err(failed("cuStreamUpdateCaptureDependencies"))
}
