// The state of a launch: the block that one host thread emulates.
#pragma once
#include <setjmp.h>
#include <string>
#include <vector>
#include "emulator.h"
#include "memory.h"
#include "races.h"
#include "switch.h"

namespace emulated {

enum class Order : uint32_t { Forward, Reverse, Random };
enum class State : uint8_t { Ready, Barrier, Warp, Done };

struct PendingCopy {
    char* to;
    const char* from;
    unsigned bytes, valid, group;
    Place place;
    const void* code;
};

struct Fiber {
    Stack stack;
    char* memory = nullptr;
    bool begun = false;
    State state = State::Ready;
    Meeting meeting = Meeting::Sync;
    Place place = {};
    unsigned mask = 0;
    int source = 0;
    uint64_t value = 0, result = 0;
    MatrixOperands* operands = nullptr;
    std::vector<PendingCopy> copies;
    unsigned group = 0;  // of the next cp.async
};

struct Machine {
    Stack home;
    sigjmp_buf escape;
    // True while a kernel's code runs: only then is a fault the kernel's.
    volatile bool in_kernel = false;
    volatile bool watchdog_fired = false;

    const Entry* entry = nullptr;
    const char* source = "";
    void** arguments = nullptr;
    Order order = Order::Forward;
    uint64_t random = 1;

    std::vector<Fiber> fibers;
    std::vector<char*> free_stacks;
    std::vector<unsigned> ready;
    size_t head = 0;
    unsigned current = 0, live = 0, arrived = 0, votes = 0;

    std::vector<uint32_t> blocks;  // in the order they run
    char* shared_memory = nullptr;
    std::string error;
    Races races;

    uint64_t next_random();
    void run_block(uint32_t block);
    void finish_thread();
    void release_barrier();
    bool warp_has_met(unsigned warp, unsigned mask, Meeting meeting) const;
    void complete_meeting(unsigned warp, unsigned mask, Meeting meeting);
    void make_ready(unsigned thread);
    void report_deadlock();
    std::string where() const;
    uint3 thread_index(unsigned thread) const;
    uint3 block_index(uint32_t block) const;
    char* take_stack();
};

// The machine of this host thread; null outside launches.
extern __thread Machine* machine;

// tensor_core.cpp
void multiply(Machine& machine, unsigned warp);
void load_matrices(Machine& machine, unsigned warp);

std::string format(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace emulated
