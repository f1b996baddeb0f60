// What the CUDA language header needs from the emulator: one fiber per CUDA thread, one block at a
// time on a host thread, barriers and collective operations of warps.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};

// Set before a fiber runs. A fiber never moves to another host thread.
extern __thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

// A line of a .cu file, for reports.
struct Place {
    const char* file;
    int line;
};

enum class Meeting : uint8_t { Sync, Shuffle, Ballot, Matrix };
enum class MatrixKind : uint8_t { Tf32_16x8x8, Bf16_16x8x16, Half_16x8x16, Load, LoadTransposed };

// One lane's part of a tensor-core product: d += a * b, or of a load of 8 by 8 matrices.
struct MatrixOperands {
    MatrixKind kind;
    float* d;
    const uint32_t* a;
    const uint32_t* b;
    uint32_t* loaded;   // Load: one register for each matrix
    const void* row;    // Load: the row of 16 bytes this lane points at
    unsigned matrices;  // Load: 1, 2 or 4
};

extern __thread char* dynamic_shared;  // 16-byte aligned; the byte behind it is not mapped

// A barrier of the block; returns the number of threads whose predicate holds.
int barrier(int predicate, Place place);
// All lanes of `mask` take part; returns the value of lane `source`, or poison if it takes no part.
uint64_t shuffle(unsigned mask, uint64_t value, int source, Place place);
// All lanes of `mask` take part; returns the lanes whose predicate holds.
unsigned ballot(unsigned mask, int predicate, Place place);
// As ballot, and also a memory barrier of these lanes. The other collective operations of a warp do not
// order memory accesses.
void sync_warp(unsigned mask, Place place);
void matrix(MatrixOperands& operands, Place place);
unsigned lane();

// A copy that lands in shared memory only when its group is waited for. `valid` bytes are read,
// the rest is zero.
void copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, Place place);
void copy_async_commit();
void copy_async_wait(unsigned groups_in_flight);

// Tells the race detector of an atomic access.
void note_atomic(const void* address, unsigned bytes, const void* code);
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// The registry that the build script makes: the entries of each .cu file.
struct Entry {
    const char* name;
    void (*call)(void** arguments);
    const size_t* argument_bytes;
    size_t arguments;
    unsigned max_threads;  // __launch_bounds__; 0 without
};
struct Source {
    const char* name;
    const Entry* entries;
    size_t entry_count;
    char* shared_begin;  // its static __shared__ variables; null without
    char* shared_end;
};
// Null-terminated: the kernels as compiled for speed, and with every access reported.
extern const Source* const plain_sources[];
extern const Source* const checked_sources[];

}  // namespace emulated
