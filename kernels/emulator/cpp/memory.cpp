#include "memory.h"
#include <sys/mman.h>
#include <algorithm>
#include <cstring>
#include "machine.h"

namespace emulated {
namespace {
constexpr size_t PAGE = 4096;
constexpr size_t RESERVED = size_t(64) << 30;
constexpr unsigned char POISON = 0xff;  // NaN as f32, bf16 and half, -1 as an integer

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }
char* reserve(size_t bytes, int protection) {
    void* place = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return place == MAP_FAILED ? nullptr : static_cast<char*>(place);
}
}  // namespace

// Addresses are never handed out twice, so that a use after release faults.
Arena::Arena(size_t limit, bool with_shadow, bool guard_before) : most(limit), before(guard_before) {
    base = reserve(RESERVED, PROT_NONE);
    reserved = base ? RESERVED : 0;
    next = PAGE;
    if (with_shadow && base) {
        shadow_bytes = RESERVED / 4 * sizeof(Cell);
        shadow = reinterpret_cast<Cell*>(reserve(shadow_bytes, PROT_READ | PROT_WRITE));
        if (!shadow) reserved = 0;
    }
}

Arena::~Arena() {
    if (base) munmap(base, RESERVED);
    if (shadow) munmap(shadow, shadow_bytes);
}

char* Arena::allocate(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    size_t mapped = round_up(bytes ? bytes : 1, PAGE);
    if (used + bytes > most || next + mapped + PAGE > reserved) return nullptr;
    char* mapping = base + next;
    if (mprotect(mapping, mapped, PROT_READ | PROT_WRITE)) return nullptr;
    next += mapped + PAGE;
    used += bytes;
    memset(mapping, POISON, mapped);
    char* start = before ? mapping : mapping + mapped - round_up(bytes, 16);
    live[start] = {bytes, mapping, mapped};
    if (shadow)
        for (size_t i = 0; i < bytes; i++) cell(start + i)->exists |= uint8_t(1 << (i & 3));  // 16-byte aligned
    return start;
}

void Arena::release(char* address) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = live.find(address);
    if (found == live.end()) return;
    Buffer buffer = found->second;
    live.erase(found);
    used -= buffer.bytes;
    // Kept for reports, up to a limit.
    if (freed.size() > 100000) freed.clear();
    freed[address] = buffer;
    mprotect(buffer.mapping, buffer.mapped, PROT_NONE);
    madvise(buffer.mapping, buffer.mapped, MADV_DONTNEED);
    if (shadow) {
        // Whole pages of the shadow only; it is zero again when next touched.
        char* from = reinterpret_cast<char*>(cell(buffer.mapping));
        char* to = reinterpret_cast<char*>(cell(buffer.mapping + buffer.mapped));
        for (char* p = from; p < to;) {
            char* whole = reinterpret_cast<char*>(round_up(uintptr_t(p), PAGE));
            char* end = reinterpret_cast<char*>(uintptr_t(to) / PAGE * PAGE);
            if (p == whole && end > p) {
                madvise(p, size_t(end - p), MADV_DONTNEED);
                p = end;
            } else {
                size_t bytes = size_t((whole > p && whole < to ? whole : to) - p);
                memset(p, 0, bytes);
                p += bytes;
            }
        }
    }
}

void Arena::poison(char* address, size_t bytes) {
    memset(address, POISON, bytes);
    if (shadow)
        for (size_t i = 0; i < bytes; i++) {
            Cell* at = cell(address + i);
            uint8_t exists = at->exists;
            *at = Cell();
            at->exists = exists;
        }
}

void Arena::mark_written(const void* address, size_t bytes) {
    if (!shadow) return;
    const char* start = static_cast<const char*>(address);
    for (size_t i = 0; i < bytes; i++) cell(start + i)->written |= uint8_t(1 << ((uintptr_t(start) + i) & 3));
}

namespace {
// The last buffer that begins at or before the address.
template <class Buffers>
typename Buffers::const_iterator before_or_at(const Buffers& buffers, const char* address) {
    auto after = buffers.upper_bound(address);
    return after == buffers.begin() ? buffers.end() : std::prev(after);
}
}  // namespace

bool Arena::holds(const void* address, size_t bytes, std::string* why) const {
    {
        std::lock_guard<std::mutex> lock(mutex);
        const char* at = static_cast<const char*>(address);
        auto buffer = before_or_at(live, at);
        if (buffer != live.end() && size_t(at - buffer->first) + bytes <= buffer->second.bytes) return true;
    }
    *why = describe(address);
    return false;
}

std::string Arena::describe(const void* address) const {
    if (uintptr_t(address) < 65536) return "through a null pointer";
    if (!contains(address)) return format("%p, which is no device memory", address);
    std::lock_guard<std::mutex> lock(mutex);
    const char* at = static_cast<const char*>(address);
    auto buffer = before_or_at(live, at), dead = before_or_at(freed, at), next = live.upper_bound(at);
    size_t past = SIZE_MAX;
    if (buffer != live.end()) {
        size_t offset = size_t(at - buffer->first), bytes = buffer->second.bytes;
        if (offset < bytes) return format("byte %zu of a buffer of %zu bytes", offset, bytes);
        past = offset - bytes;
    }
    if (dead != freed.end() && size_t(at - dead->first) < dead->second.bytes)
        return format("byte %zu of a buffer of %zu bytes that has been freed", size_t(at - dead->first), dead->second.bytes);
    if (next != live.end() && size_t(next->first - at) < past)
        return format("%zu bytes before a buffer of %zu bytes", size_t(next->first - at), next->second.bytes);
    if (past == SIZE_MAX) return format("%p, where no buffer is", address);
    return format("%zu bytes past the end of a buffer of %zu bytes", past, buffer->second.bytes);
}

std::string Arena::broken_slack() const {
    std::lock_guard<std::mutex> lock(mutex);
    for (const auto& [start, buffer] : live) {
        const char* end = start + buffer.bytes;
        // Behind a buffer at the start of its pages, look at a cache line only.
        size_t slack = std::min<size_t>(size_t(buffer.mapping + buffer.mapped - end), 64);
        for (size_t i = 0; i < slack; i++)
            if (static_cast<unsigned char>(end[i]) != POISON)
                return format("writes %zu bytes past the end of a buffer of %zu bytes", i, buffer.bytes);
    }
    return {};
}

}  // namespace emulated
