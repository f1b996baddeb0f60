// The emulator as Rust sees it, and the signals that end a launch.
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include "machine.h"

extern "C" const char __executable_start;

namespace emulated {
namespace {
constexpr size_t PAGE = 4096, SHARED_MOST = 227 << 10, SIGNAL_STACK = 64 << 10;
constexpr int WATCHDOG = SIGUSR2;

struct Fault {
    int signal;
    const void* address;
    const void* code;
    bool writes;
};
__thread Fault fault;
struct sigaction previous[4];
const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

void on_fault(int signal, siginfo_t* info, void* context) {
    Machine* m = machine;
    if (!m || !m->in_kernel) {  // not a kernel's: whoever was there before us decides
        for (int i = 0; i < 4; i++)
            if (caught[i] == signal) sigaction(signal, &previous[i], nullptr);
        return;
    }
    fault = {signal, info->si_addr, nullptr, false};
#if defined(__x86_64__)
    const greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    fault.code = reinterpret_cast<const void*>(registers[REG_RIP]);
    fault.writes = signal == SIGSEGV && (registers[REG_ERR] & 2);
#else
    (void)context;
#endif
    m->in_kernel = false;
    siglongjmp(m->escape, 2);
}

void on_watchdog(int, siginfo_t*, void*) {
    Machine* m = machine;
    if (!m) return;
    m->watchdog_fired = true;
    if (!m->in_kernel) return;
    m->in_kernel = false;
    siglongjmp(m->escape, 3);
}

void install_handlers() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        action.sa_sigaction = on_fault;
        for (int i = 0; i < 4; i++) sigaction(caught[i], &action, &previous[i]);
        action.sa_sigaction = on_watchdog;
        sigaction(WATCHDOG, &action, nullptr);
    });
}

// One machine for each host thread: fibers and stacks are kept between launches.
struct Host {
    Machine machine;
    char* shared = nullptr;  // its last page is a guard
    timer_t timer;
    bool has_timer = false;

    Host() {
        void* memory = mmap(nullptr, SHARED_MOST + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        shared = static_cast<char*>(memory);
        mprotect(shared + (SHARED_MOST + PAGE) / PAGE * PAGE, PAGE, PROT_NONE);
        static __thread char signal_stack[SIGNAL_STACK];
        stack_t stack = {};
        stack.ss_sp = signal_stack;
        stack.ss_size = SIGNAL_STACK;
        sigaltstack(&stack, nullptr);
        struct sigevent event = {};
        event.sigev_notify = SIGEV_THREAD_ID;
        event.sigev_signo = WATCHDOG;
        event._sigev_un._tid = int(syscall(SYS_gettid));
        has_timer = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) == 0;
    }
    ~Host() {
        if (has_timer) timer_delete(timer);
        munmap(shared, SHARED_MOST + 2 * PAGE);
    }
    char* shared_end() const { return shared + (SHARED_MOST + PAGE) / PAGE * PAGE; }
    void arm(unsigned seconds) {
        struct itimerspec when = {};
        when.it_value.tv_sec = seconds;
        if (has_timer) timer_settime(timer, 0, &when, nullptr);
    }
};

// A .cu file's static shared memory exists once, so its kernels run one at a time.
std::mutex& source_mutex(const Source* source) {
    static std::mutex guard;
    static std::map<const Source*, std::mutex> mutexes;
    std::lock_guard<std::mutex> lock(guard);
    return mutexes[source];
}

std::string describe_fault(const Machine& m, const Arena& arena) {
    unsigned code = unsigned(uintptr_t(fault.code) - uintptr_t(&__executable_start));
    std::string at = fault.code ? format(" {code %x}", code) : "";
    if (fault.signal == SIGFPE) return m.where() + " divides by zero" + at;
    if (fault.signal == SIGILL) return m.where() + " reaches what cannot be reached" + at;
    const char* what = fault.writes ? "writes" : "reads";
    uintptr_t past = uintptr_t(fault.address) - uintptr_t(m.races.dynamic_shared);
    if (past < SHARED_MOST + PAGE && past >= m.races.dynamic_shared_bytes)
        return m.where() + format(" %s %zu bytes past the end of its %zu bytes of dynamic shared memory", what, size_t(past - m.races.dynamic_shared_bytes), m.races.dynamic_shared_bytes) + at;
    return m.where() + " " + what + " " + arena.describe(fault.address) + at;
}

}  // namespace
}  // namespace emulated

using namespace emulated;

extern "C" {

struct CrossfixLaunch {
    const char* source;
    const char* entry;
    uint32_t grid[3], block[3];
    uint32_t shared_bytes;
    uint32_t order;
    uint64_t seed;
    uint32_t checked;
    uint32_t limit_s;
};

Arena* crossfix_arena_new(size_t limit, int shadow, int guard_before) { return new Arena(limit, shadow, guard_before); }
void crossfix_arena_drop(Arena* arena) { delete arena; }
void* crossfix_arena_allocate(Arena* arena, size_t bytes) { return arena->allocate(bytes); }
void crossfix_arena_release(Arena* arena, void* address) { arena->release(static_cast<char*>(address)); }
void crossfix_arena_poison(Arena* arena, void* address, size_t bytes) { arena->poison(static_cast<char*>(address), bytes); }
void crossfix_arena_mark_written(Arena* arena, const void* address, size_t bytes) { arena->mark_written(address, bytes); }
size_t crossfix_arena_in_use(const Arena* arena) { return arena->in_use(); }
// Whether the bytes lie in one live buffer; else `message` says what lies there.
int crossfix_arena_holds(const Arena* arena, const void* address, size_t bytes, char* message, size_t capacity) {
    std::string why;
    if (arena->holds(address, bytes, &why)) return 1;
    snprintf(message, capacity, "%s", why.c_str());
    return 0;
}

// The sizes of a kernel's arguments; -1 when there is no such kernel.
ptrdiff_t crossfix_argument_bytes(const char* source, const char* entry, const size_t** bytes) {
    for (const Source* const* s = plain_sources; *s; s++)
        for (size_t i = 0; i < (*s)->entry_count; i++)
            if (!strcmp((*s)->name, source) && !strcmp((*s)->entries[i].name, entry)) {
                *bytes = (*s)->entries[i].argument_bytes;
                return ptrdiff_t((*s)->entries[i].arguments);
            }
    return -1;
}

// Runs a kernel to its end. 0, or `message` says what is wrong with it.
int crossfix_launch(Arena* arena, const CrossfixLaunch* launch, void** arguments, char* message, size_t capacity) {
    install_handlers();
    static thread_local Host host;
    Machine& m = host.machine;
    const Source* source = nullptr;
    const Entry* entry = nullptr;
    for (const Source* const* s = launch->checked ? checked_sources : plain_sources; *s && !entry; s++) {
        if (strcmp((*s)->name, launch->source)) continue;
        source = *s;
        for (size_t i = 0; i < source->entry_count; i++)
            if (!strcmp(source->entries[i].name, launch->entry)) entry = &source->entries[i];
    }
    if (!entry) {
        snprintf(message, capacity, "no kernel %s in %s", launch->entry, launch->source);
        return 1;
    }
    unsigned threads = launch->block[0] * launch->block[1] * launch->block[2];
    if (entry->max_threads && threads > entry->max_threads) {
        snprintf(message, capacity, "%s (%s): launched with %u threads, its __launch_bounds__ allow %u", launch->entry, launch->source, threads, entry->max_threads);
        return 1;
    }
    if (launch->shared_bytes > SHARED_MOST) {
        snprintf(message, capacity, "%s (%s): asks for %u bytes of dynamic shared memory, a block has %zu", launch->entry, launch->source, launch->shared_bytes, SHARED_MOST);
        return 1;
    }
    std::unique_lock<std::mutex> lock(source_mutex(source));
    size_t shared_bytes = launch->shared_bytes, static_bytes = size_t(source->shared_end - source->shared_begin);
    gridDim = {launch->grid[0], launch->grid[1], launch->grid[2]};
    blockDim = {launch->block[0], launch->block[1], launch->block[2]};
    m.entry = entry;
    m.source = source->name;
    m.arguments = arguments;
    m.order = Order(launch->order);
    m.random = launch->seed * 0x9e3779b97f4a7c15u + 0x1234567;
    m.error.clear();
    m.watchdog_fired = false;
    m.races.on = launch->checked && arena->shadow;
    m.races.arena = arena;
    m.races.static_shared = source->shared_begin;
    m.races.static_shared_bytes = static_bytes;
    m.races.dynamic_shared = dynamic_shared = host.shared_end() - (shared_bytes + 15) / 16 * 16;
    m.races.dynamic_shared_bytes = shared_bytes;
    uint32_t blocks = gridDim.x * gridDim.y * gridDim.z;
    m.blocks.resize(blocks);
    for (uint32_t i = 0; i < blocks; i++) m.blocks[i] = m.order == Order::Reverse ? blocks - 1 - i : i;
    if (m.order == Order::Random)
        for (uint32_t i = blocks; i > 1; i--) std::swap(m.blocks[i - 1], m.blocks[m.next_random() % i]);
    if (m.races.on) m.races.begin_launch(blocks);
    machine = &m;
    host.arm(launch->limit_s);
    // Everything that a jump back here needs lives in the machine.
    switch (sigsetjmp(m.escape, 1)) {
        case 0:
            for (uint32_t i = 0; i < blocks && m.error.empty(); i++) {
                memset(dynamic_shared, 0xff, host.shared_end() - dynamic_shared);
                if (static_bytes) memset(source->shared_begin, 0xff, static_bytes);
                if (m.races.on) m.races.begin_block(i, threads);
                m.run_block(m.blocks[i]);
            }
            if (m.races.on && m.error.empty()) m.error = m.races.pending;
            break;
        case 2: m.error = describe_fault(m, *arena); break;
        case 3: m.error = m.where() + format(" still runs after %u s: an endless loop, or it waits for a thread that waits for it", launch->limit_s); break;
        default: break;  // fail() has written the error
    }
    host.arm(0);
    machine = nullptr;
    if (m.error.empty()) {
        std::string broken = arena->broken_slack();
        if (!broken.empty()) m.error = format("%s (%s): ", launch->entry, launch->source) + broken;
    }
    if (m.error.empty()) return 0;
    snprintf(message, capacity, "%s", m.error.c_str());
    return 2;
}
}
