//! Placeholder.
pub mod city;
pub mod report;
