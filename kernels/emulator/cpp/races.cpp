#include "races.h"
#include <atomic>
#include "machine.h"

extern "C" const char __executable_start;

namespace emulated {
namespace {
std::atomic<uint32_t> next_serial{1};
uint32_t offset_of(const void* code) { return uint32_t(uintptr_t(code) - 1 - uintptr_t(&__executable_start)); }
std::string thread_name(const Machine& machine, uint32_t serial, unsigned thread) {
    uint3 b = machine.block_index(machine.blocks[serial - machine.races.first_serial]), t = machine.thread_index(thread);
    return format("block (%u,%u,%u) thread (%u,%u,%u)", b.x, b.y, b.z, t.x, t.y, t.z);
}
}  // namespace

void Races::begin_launch(uint32_t count) {
    blocks = count;
    pending.clear();
    first_serial = next_serial.fetch_add(count);
    static_cells.resize((static_shared_bytes + 3) / 4);
    for (Cell& cell : static_cells) cell.exists = 15;
    dynamic_cells.resize((dynamic_shared_bytes + 3) / 4);
    for (size_t i = 0; i < dynamic_shared_bytes; i++) dynamic_cells[i / 4].exists |= uint8_t(1 << (i & 3));
    for (size_t i = dynamic_shared_bytes; i < dynamic_cells.size() * 4; i++) dynamic_cells[i / 4].exists &= uint8_t(~(1 << (i & 3)));
}

void Races::begin_block(unsigned index, unsigned threads) {
    serial = first_serial + index;
    epoch = 0;
    clocks.assign(threads, 1);
    known.assign(size_t(threads) * 32, 0);
}

// All of `lanes` know what each of them has done.
void Races::join_warp(unsigned warp, unsigned lanes) {
    if (!on) return;
    unsigned first = warp * 32, threads = unsigned(clocks.size());
    uint32_t joined[32] = {};
    for (unsigned l = 0; l < 32; l++) {
        if (!(lanes >> l & 1) || first + l >= threads) continue;
        for (unsigned k = 0; k < 32; k++) {
            uint32_t knows = known[(first + l) * 32 + k];
            if (knows > joined[k]) joined[k] = knows;
        }
        if (clocks[first + l] > joined[l]) joined[l] = clocks[first + l];
    }
    for (unsigned l = 0; l < 32; l++) {
        if (!(lanes >> l & 1) || first + l >= threads) continue;
        for (unsigned k = 0; k < 32; k++) known[(first + l) * 32 + k] = joined[k];
        clocks[first + l]++;
    }
}

bool Races::ordered(const Access& before, const Access& now) const {
    if (before.serial - first_serial >= blocks) return true;  // an earlier launch, or none
    if (before.serial != now.serial) return false;            // another block
    if (before.thread == now.thread || before.epoch < now.epoch) return true;
    return before.thread / 32 == now.thread / 32 && known[size_t(now.thread) * 32 + before.thread % 32] >= before.clock;
}

void Races::check(Machine& m, Cell& cell, uint8_t bytes, bool shared, const Access& now, bool write, const void* address) {
    auto what = [&] { return shared ? std::string("shared memory") : arena->describe(address); };
    if ((cell.exists & bytes) != bytes)
        fail("%s %s {code %x}", write ? "writes" : "reads", shared ? "past the end of its dynamic shared memory" : arena->describe(address).c_str(), now.code);
    if (shared && cell.written_serial != now.serial) {
        cell.written = 0;
        cell.written_serial = now.serial;
    }
    bool reads = !write || now.atomic;
    if (reads && (cell.written & bytes) != bytes && pending.empty())
        pending = m.where() + format(" reads %s, which nobody has written {code %x}", what().c_str(), now.code);
    if (write) cell.written |= bytes;

    auto conflict = [&](const Access& before, bool before_writes) {
        if (shared && before.serial != now.serial) return;  // shared memory of another block
        if (!before.serial || !(before.bytes & bytes) || (before.atomic && now.atomic) || ordered(before, now)) return;
        fail("race on %s: it %s {code %x}; %s %s {code %x}, and nothing orders the two", what().c_str(),
             write ? "writes" : "reads", now.code, thread_name(m, before.serial, before.thread).c_str(),
             before_writes ? "writes" : "reads", before.code);
    };
    conflict(cell.write, true);
    if (write) {
        for (const Access& read : cell.reads) conflict(read, false);
        cell.write = now;
        return;
    }
    // Keep two reads of different threads, best of different warps and blocks: then whoever writes
    // unordered meets one of them.
    Access *a = &cell.reads[0], *b = &cell.reads[1];
    auto same = [&](const Access& x) { return x.serial == now.serial && x.thread == now.thread; };
    auto kin = [&](const Access& x, const Access& y) { return x.serial == y.serial && x.thread / 32 == y.thread / 32; };
    if (same(*a) || !a->serial || ordered(*a, now)) {
        Access all = now;
        if (same(*a) && a->epoch == now.epoch && a->clock == now.clock) all.bytes |= a->bytes;
        *a = all;
    } else if (same(*b) || !b->serial || ordered(*b, now) || (kin(*a, *b) && !kin(*a, now))) {
        *b = now;
    }
}

void Races::access(Machine& m, const void* address, size_t bytes, bool write, bool atomic, const void* code) {
    uintptr_t at = uintptr_t(address);
    Cell* cells;
    bool shared = true;
    if (arena && arena->contains(address)) {
        cells = arena->cell(address);
        shared = false;
    } else if (at - uintptr_t(static_shared) < static_shared_bytes) {
        cells = &static_cells[(at - uintptr_t(static_shared)) / 4];
    } else if (at - uintptr_t(dynamic_shared) < dynamic_cells.size() * 4) {
        cells = &dynamic_cells[(at - uintptr_t(dynamic_shared)) / 4];
    } else {
        return;  // registers and constants
    }
    Access now;
    now.serial = serial;
    now.epoch = epoch;
    now.clock = clocks[m.current];
    now.code = offset_of(code);
    now.thread = uint16_t(m.current);
    now.atomic = atomic;
    for (size_t done = 0; done < bytes; cells++) {
        size_t first = (at + done) & 3, count = bytes - done < 4 - first ? bytes - done : 4 - first;
        now.bytes = uint8_t(((1 << count) - 1) << first);
        check(m, *cells, now.bytes, shared, now, write, reinterpret_cast<const char*>(address) + done);
        done += count;
    }
}

void note_atomic(const void* address, unsigned bytes, const void* code) {
    if (machine && machine->races.on) machine->races.access(*machine, address, bytes, true, true, code);
}

}  // namespace emulated

// What -fsanitize=thread calls; the compiler's own runtime is not linked.
namespace {
inline void note(const void* address, size_t bytes, bool write, const void* code) {
    emulated::Machine* machine = emulated::machine;
    if (machine && machine->races.on) machine->races.access(*machine, address, bytes, write, false, code);
}
}  // namespace
#define HOOK(bytes)                                                                                          \
    void __tsan_read##bytes(void* address) { note(address, bytes, false, __builtin_return_address(0)); }     \
    void __tsan_write##bytes(void* address) { note(address, bytes, true, __builtin_return_address(0)); }     \
    void __tsan_unaligned_read##bytes(void* address) { note(address, bytes, false, __builtin_return_address(0)); } \
    void __tsan_unaligned_write##bytes(void* address) { note(address, bytes, true, __builtin_return_address(0)); }
extern "C" {
HOOK(1) HOOK(2) HOOK(4) HOOK(8) HOOK(16)
void __tsan_read_range(void* address, size_t bytes) { note(address, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void* address, size_t bytes) { note(address, bytes, true, __builtin_return_address(0)); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
