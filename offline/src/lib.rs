//! What the `crossfix` program does: simulates, learns, adapts, measures, exports, reports.
//!
//! The modules in the order data flows through them: [`city`], [`simulate`], [`tileset`], [`ingest`], [`data`],
//! [`model`], [`import`], [`train`], [`recipe`], [`check`], [`calibrate`], [`predict`], [`shard`], [`student`], [`metrics`], [`evaluate`], [`export`],
//! [`report`], [`demo`], [`storage`] (URLs as folders), [`cli`]. Begin with [`model`] and [`train`].

pub mod ablate;
pub mod calibrate;
pub mod check;
pub mod city;
pub mod cli;
pub mod data;
pub mod demo;
pub mod evaluate;
pub mod export;
pub mod import;
pub mod ingest;
pub mod metrics;
pub mod model;
pub mod output;
pub mod predict;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod run;
pub mod shard;
pub mod simulate;
pub mod storage;
pub mod student;
pub mod tileset;
pub mod train;
