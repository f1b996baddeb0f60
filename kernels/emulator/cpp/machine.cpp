// The scheduler: runs the threads of a block as fibers that switch only where CUDA threads wait for
// each other.
#define CROSSFIX_SWITCH_HERE
#include "machine.h"
#include <sys/mman.h>
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

__thread uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

__thread Machine* machine;
__thread char* dynamic_shared;

namespace {
constexpr size_t STACK = 64 << 10, PAGE = 4096;

void enter() {
    machine->entry->call(machine->arguments);
    machine->finish_thread();
    abort();
}

// Switches to the scheduler, until this thread is scheduled again.
void yield() {
    Machine& m = *machine;
    m.in_kernel = false;
    switch_stack(m.fibers[m.current].stack, m.home);
    m.in_kernel = true;
}

const char* file_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char* meeting_name(const Fiber& fiber) {
    if (fiber.state == State::Barrier) return "__syncthreads";
    switch (fiber.meeting) {
        case Meeting::Sync: return "__syncwarp";
        case Meeting::Shuffle: return "a shuffle";
        case Meeting::Ballot: return "a vote";
        default: return "a tensor-core instruction";
    }
}

void meet(unsigned mask, Meeting meeting, Place place) {
    Machine& m = *machine;
    m.in_kernel = false;
    Fiber& own = m.fibers[m.current];
    if (!(mask >> (m.current & 31) & 1))
        fail("calls a warp function at %s:%d whose mask %08x leaves it out", file_name(place.file), place.line, mask);
    own.state = State::Warp;
    own.mask = mask;
    own.meeting = meeting;
    own.place = place;
    unsigned warp = m.current / 32;
    if (m.warp_has_met(warp, mask, meeting)) m.complete_meeting(warp, mask, meeting);
    yield();
}
}  // namespace

std::string format(const char* text, ...) {
    char buffer[1024];
    va_list list;
    va_start(list, text);
    vsnprintf(buffer, sizeof buffer, text, list);
    va_end(list);
    return buffer;
}

// Ends the launch with an error of the running thread.
void fail(const char* text, ...) {
    char buffer[1024];
    va_list list;
    va_start(list, text);
    vsnprintf(buffer, sizeof buffer, text, list);
    va_end(list);
    Machine& m = *machine;
    m.error = m.where() + " " + buffer;
    m.in_kernel = false;
    siglongjmp(m.escape, 1);
}

unsigned lane() { return machine->current & 31; }

int barrier(int predicate, Place place) {
    Machine& m = *machine;
    m.in_kernel = false;
    Fiber& own = m.fibers[m.current];
    size_t ended = m.fibers.size() - m.live;
    if (ended)
        fail("waits at __syncthreads at %s:%d, which %zu threads of its block will not reach: they have ended",
             file_name(place.file), place.line, ended);
    own.state = State::Barrier;
    own.place = place;
    m.votes += predicate != 0;
    if (++m.arrived == m.live) m.release_barrier();
    yield();
    return int(own.result);
}

uint64_t shuffle(unsigned mask, uint64_t value, int source, Place place) {
    Fiber& own = machine->fibers[machine->current];
    own.value = value;
    own.source = source;
    meet(mask, Meeting::Shuffle, place);
    return own.result;
}

unsigned ballot(unsigned mask, int predicate, Place place) {
    Fiber& own = machine->fibers[machine->current];
    own.value = predicate != 0;
    meet(mask, Meeting::Ballot, place);
    return unsigned(own.result);
}

void sync_warp(unsigned mask, Place place) { meet(mask, Meeting::Sync, place); }

void matrix(MatrixOperands& operands, Place place) {
    machine->fibers[machine->current].operands = &operands;
    meet(0xffffffffu, Meeting::Matrix, place);
}

void copy_async(void* shared, const void* global, unsigned bytes, unsigned valid, Place place) {
    Machine& m = *machine;
    if ((uintptr_t(shared) | (valid ? uintptr_t(global) : 0)) % bytes)
        fail("copies %u bytes asynchronously at %s:%d from or to an address that is no multiple of it", bytes, file_name(place.file), place.line);
    if (valid) {  // a fault belongs here
        (void)*static_cast<const volatile char*>(global);
        (void)static_cast<const volatile char*>(global)[valid - 1];
        if (m.races.on) m.races.access(m, global, valid, false, false, __builtin_return_address(0));
    }
    m.in_kernel = false;
    Fiber& own = m.fibers[m.current];
    own.copies.push_back({static_cast<char*>(shared), static_cast<const char*>(global), bytes, valid, own.group, place, __builtin_return_address(0)});
    m.in_kernel = true;
}

void copy_async_commit() { machine->fibers[machine->current].group++; }

void copy_async_wait(unsigned in_flight) {
    Machine& m = *machine;
    Fiber& own = m.fibers[m.current];
    auto landed = own.copies.begin();
    for (; landed != own.copies.end() && landed->group + in_flight < own.group; ++landed) {
        memcpy(landed->to, landed->from, landed->valid);
        memset(landed->to + landed->valid, 0, landed->bytes - landed->valid);
        if (m.races.on) m.races.access(m, landed->to, landed->bytes, true, false, landed->code);
    }
    own.copies.erase(own.copies.begin(), landed);
}

uint64_t Machine::next_random() {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    return random;
}

uint3 Machine::thread_index(unsigned t) const {
    return {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
}

uint3 Machine::block_index(uint32_t b) const {
    return {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
}

std::string Machine::where() const {
    uint3 t = thread_index(current);
    return format("%s (%s): block (%u,%u,%u) thread (%u,%u,%u)", entry->name, source, blockIdx.x, blockIdx.y, blockIdx.z, t.x, t.y, t.z);
}

void Machine::make_ready(unsigned thread) {
    fibers[thread].state = State::Ready;
    ready.push_back(thread);
}

void Machine::release_barrier() {
    const Place& first = fibers[current].place;
    for (const Fiber& fiber : fibers)
        if (fiber.place.line != first.line || strcmp(fiber.place.file, first.file))
            fail("is at __syncthreads at %s:%d while another thread of its block is at %s:%d", file_name(first.file), first.line, file_name(fiber.place.file), fiber.place.line);
    unsigned count = unsigned(fibers.size());
    for (unsigned i = 0; i < count; i++) {
        unsigned t = order == Order::Reverse ? count - 1 - i : i;
        fibers[t].result = votes;
        make_ready(t);
    }
    arrived = votes = 0;
    races.epoch++;
}

bool Machine::warp_has_met(unsigned warp, unsigned mask, Meeting meeting) const {
    for (unsigned l = 0; l < 32; l++) {
        unsigned t = warp * 32 + l;
        if (!(mask >> l & 1) || t >= fibers.size()) continue;
        const Fiber& fiber = fibers[t];
        if (fiber.state == State::Done) continue;
        if (fiber.state != State::Warp || fiber.mask != mask || fiber.meeting != meeting) return false;
    }
    return true;
}

// The last lane to arrive does the work of all, so that no operand changes while it is read.
void Machine::complete_meeting(unsigned warp, unsigned mask, Meeting meeting) {
    unsigned present = 0, votes_for = 0;
    for (unsigned l = 0; l < 32; l++) {
        unsigned t = warp * 32 + l;
        if ((mask >> l & 1) && t < fibers.size() && fibers[t].state == State::Warp) present |= 1u << l;
        if ((present >> l & 1) && fibers[t].value) votes_for |= 1u << l;
    }
    if (meeting == Meeting::Matrix) {
        if (present != 0xffffffffu) fail("uses the tensor cores at %s:%d without its whole warp", file_name(fibers[current].place.file), fibers[current].place.line);
        if (fibers[current].operands->d) multiply(*this, warp);
        else {
            in_kernel = true;  // its addresses are the kernel's
            load_matrices(*this, warp);
            in_kernel = false;
        }
    }
    if (meeting == Meeting::Sync) races.join_warp(warp, present);
    for (unsigned i = 0; i < 32; i++) {
        unsigned l = order == Order::Reverse ? 31 - i : i, t = warp * 32 + l;
        if (!(present >> l & 1)) continue;
        Fiber& fiber = fibers[t];
        if (meeting == Meeting::Ballot) fiber.result = votes_for;
        if (meeting == Meeting::Shuffle) {
            unsigned from = unsigned(fiber.source) & 31;
            fiber.result = present >> from & 1 ? fibers[warp * 32 + from].value : ~uint64_t(0);
        }
        make_ready(t);
    }
}

// The end of the running thread; never returns.
void Machine::finish_thread() {
    in_kernel = false;
    Fiber& own = fibers[current];
    if (!own.copies.empty())
        fail("ends with a copy in flight that it never waited for, begun at %s:%d", file_name(own.copies[0].place.file), own.copies[0].place.line);
    own.state = State::Done;
    live--;
    if (arrived)
        for (const Fiber& fiber : fibers)
            if (fiber.state == State::Barrier)
                fail("ends while %u threads of its block wait at __syncthreads at %s:%d", arrived, file_name(fiber.place.file), fiber.place.line);
    unsigned warp = current / 32;  // an end can complete a meeting of the others
    for (unsigned l = 0; l < 32 && warp * 32 + l < fibers.size(); l++) {
        const Fiber& fiber = fibers[warp * 32 + l];
        if (fiber.state == State::Warp && warp_has_met(warp, fiber.mask, fiber.meeting)) complete_meeting(warp, fiber.mask, fiber.meeting);
    }
    yield();
}

char* Machine::take_stack() {
    if (free_stacks.empty()) {
        void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) abort();
        mprotect(memory, PAGE, PROT_NONE);
        free_stacks.push_back(static_cast<char*>(memory) + PAGE);
    }
    char* stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
}

void Machine::run_block(uint32_t block) {
    blockIdx = block_index(block);
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    for (Fiber& fiber : fibers)  // left behind by an error
        if (fiber.memory) {
            free_stacks.push_back(fiber.memory);
            fiber.memory = nullptr;
        }
    fibers.resize(threads);
    live = threads;
    arrived = votes = 0;
    ready.clear();
    head = 0;
    for (unsigned i = 0; i < threads; i++) {
        unsigned t = order == Order::Reverse ? threads - 1 - i : i;
        fibers[t].begun = false;
        fibers[t].copies.clear();
        fibers[t].group = 0;
        make_ready(t);
    }
    while (head < ready.size()) {
        if (order == Order::Random) {
            // Half of the time the thread that became ready last: long runs of few threads find other
            // faults than an even mixture.
            uint64_t random = next_random();
            size_t pick = random & 1 ? head + size_t((random >> 1) % (ready.size() - head)) : ready.size() - 1;
            std::swap(ready[head], ready[pick]);
        }
        current = ready[head++];
        if (head == ready.size()) {
            head = 0;
            ready.clear();
        }
        Fiber& fiber = fibers[current];
        threadIdx = thread_index(current);
        if (!fiber.begun) {
            fiber.begun = true;
            fiber.memory = take_stack();
            prepare(fiber.stack, fiber.memory, STACK, uintptr_t(fiber.memory) / (STACK + PAGE) * 7 % 61 * 256, enter);
        }
        in_kernel = true;
        switch_stack(home, fiber.stack);
        in_kernel = false;
        if (fiber.state == State::Done) {
            free_stacks.push_back(fiber.memory);
            fiber.memory = nullptr;
        }
        if (watchdog_fired) {
            error = where() + " is one of many threads that still run; the launch takes too long";
            return;
        }
    }
    if (live) report_deadlock();
}

void Machine::report_deadlock() {
    std::string waiting;
    for (size_t i = 0; i < fibers.size(); i++) {
        const Fiber& fiber = fibers[i];
        if (fiber.state == State::Done) continue;
        size_t same = 0;
        bool first = true;
        for (size_t j = 0; j < fibers.size(); j++) {
            bool equal = fibers[j].state == fiber.state && fibers[j].place.line == fiber.place.line && (fiber.state == State::Barrier || fibers[j].mask == fiber.mask);
            same += equal;
            if (equal && j < i) first = false;
        }
        if (first) waiting += format("%s%zu at %s at %s:%d", waiting.empty() ? "" : ", ", same, meeting_name(fiber), file_name(fiber.place.file), fiber.place.line);
    }
    error = format("%s (%s): block (%u,%u,%u): threads wait for each other for ever: %s, %zu have ended", entry->name, source, blockIdx.x, blockIdx.y, blockIdx.z, waiting.c_str(), fibers.size() - live);
}

}  // namespace emulated
