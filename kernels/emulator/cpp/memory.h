// Device memory: buffers in one reserved range, each with unmapped pages before and behind it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include "races.h"

namespace emulated {

class Arena {
public:
    // `limit` bytes may be in use; with `shadow`, every access can be checked.
    Arena(size_t limit, bool shadow, bool guard_before);
    ~Arena();
    // Poisoned memory, 16-byte aligned. Null when there is no room.
    char* allocate(size_t bytes);
    void release(char* address);
    // Poison again: what it held is not to be read.
    void poison(char* address, size_t bytes);
    // The bytes have a value now (written by the host).
    void mark_written(const void* address, size_t bytes);
    bool contains(const void* address) const { return uintptr_t(address) - uintptr_t(base) < reserved; }
    Cell* cell(const void* address) const { return shadow + (uintptr_t(address) - uintptr_t(base)) / 4; }
    // Whether the bytes lie in one live buffer; else why not.
    bool holds(const void* address, size_t bytes, std::string* why) const;
    // What lies at an address, for reports.
    std::string describe(const void* address) const;
    // The first buffer whose slack, the bytes between its end and the guard page, was written.
    std::string broken_slack() const;
    size_t in_use() const { return used; }
    size_t limit() const { return most; }
    Cell* shadow = nullptr;

private:
    struct Buffer {
        size_t bytes;
        char* mapping;
        size_t mapped;
    };
    using Buffers = std::map<const char*, Buffer>;
    mutable std::mutex mutex;
    Buffers live, freed;
    char* base = nullptr;
    size_t reserved = 0, next = 0, used = 0, most = 0, shadow_bytes = 0;
    bool before;
};

}  // namespace emulated
