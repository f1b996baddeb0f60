// The race detector: the kernels compiled with -fsanitize=thread call us before every access, and
// we know what orders accesses in CUDA: a barrier of the block, __syncwarp, the end of a launch.
//
// Two accesses of different threads race when they touch the same bytes, one of them writes, not
// both are atomic, and nothing orders them. The verdict does not depend on the schedule.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulated {

class Arena;
struct Machine;

// One access to four bytes of memory.
struct Access {
    uint32_t serial = 0;  // the run of a block, unique in the process; 0 for none
    uint32_t epoch = 0;   // barriers the block had passed
    uint32_t clock = 0;   // __syncwarps the thread had passed
    uint32_t code = 0;    // offset of the instruction in the program
    uint16_t thread = 0;
    uint8_t bytes = 0;    // which of the four
    uint8_t atomic = 0;
};

// The access history of four bytes: the last write, two reads by different threads, and which
// bytes exist and have a value.
struct Cell {
    Access write, reads[2];
    uint32_t written_serial = 0;  // shared memory: the block in which `written` holds
    uint8_t written = 0, exists = 0;
};

struct Races {
    bool on = false;
    Arena* arena = nullptr;
    char* static_shared = nullptr;
    size_t static_shared_bytes = 0;
    char* dynamic_shared = nullptr;
    size_t dynamic_shared_bytes = 0;
    std::vector<Cell> static_cells, dynamic_cells;

    // The first read of what nobody has written. Told only when the launch ends without a race,
    // which would explain it better.
    std::string pending;

    uint32_t first_serial = 0, blocks = 0;  // of this launch
    uint32_t serial = 0, epoch = 0;         // of this block
    std::vector<uint32_t> clocks;           // by thread
    std::vector<uint32_t> known;            // [thread][lane]: the clock of a lane of the same warp that is known to have passed

    void begin_launch(uint32_t blocks);
    void begin_block(unsigned index, unsigned threads);
    void join_warp(unsigned warp, unsigned lanes);
    void access(Machine& machine, const void* address, size_t bytes, bool write, bool atomic, const void* code);

private:
    void check(Machine& machine, Cell& cell, uint8_t bytes, bool shared, const Access& now, bool write, const void* address);
    bool ordered(const Access& before, const Access& now) const;
};

}  // namespace emulated
