/* A SIMULATED libnvidia-ml.so.1, for the lab's hosts only. It drives no hardware.
 *
 * What a card is (name, memory, links, pairs) comes from a table; what it does comes from real
 * processes. Layout and meaning of the calls follow NVIDIA's nvml.h, as nvidia-ml-py binds it; a
 * call that is missing here is "function not found" there, as with an older driver.
 *
 *   table   $SIMULATED_GPU_TABLE, else /etc/simulated-gpu/table.ini: [system], [gpu N], [pair A B]
 *   state   $SIMULATED_GPU_STATE, else /run/simulated-gpu, one directory per card:
 *             server   "PID IDLE_KIB" of the ggml-rpc-server that plays the card's compute engine
 *             <pid>    "IDLE_KIB" of a process that uses the card by itself (simulated vLLM)
 *             fault    "lost": the card has fallen off the bus; "reset": it needs a reset;
 *                      "recovery N": it answers, and field 230 (GPU recovery action) is N
 *
 * Used memory is the anonymous resident memory of those processes beyond what each held when it
 * started, so that an idle card reads 0. Utilization is their CPU time, in percent of one core.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define MAX_GPUS 16
#define MAX_PROCESSES 32
#define FIRST_PORT 50052
#define WINDOW_SECONDS 0.2
#define KEEP_SECONDS 1.0

typedef unsigned int u32;
typedef unsigned long long u64;

enum result {
  SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, RESET_REQUIRED = 16,
  ARGUMENT_VERSION_MISMATCH = 25,
};
typedef enum result result;

struct gpu {
  char name[96], uuid[80], pci_bus_id[32], ecc[16], mig[16], display[16], cpus[64];
  u64 device_id, subsystem_id, memory_mib, reserved_mib, architecture, brand, numa_node;
  u64 compute_major, compute_minor, temperature_c;
  u64 pcie_gen, pcie_gen_max, pcie_width, pcie_width_max;
  u64 power_w, power_limit_w, power_limit_default_w, power_limit_min_w, power_limit_max_w;
  u64 ticks;        /* CPU time of its processes at the last sample */
  u32 utilization;  /* percent over the last window */
};

struct pair { u32 ancestor, p2p, nvlinks; };
/* A server may claim memory that it does not really hold: nobody has 24 GiB to spare here. */
struct process { u32 pid; u64 idle_kib, claimed_kib; };

static struct gpu gpus[MAX_GPUS];
static struct pair pairs[MAX_GPUS][MAX_GPUS];
static int gpu_count = -1;
static char driver_version[64], cuda_version[16];
static double sampled_at;

/* --- the table ------------------------------------------------------------------------------ */

enum kind { TEXT, NUMBER };
struct key { const char *name; enum kind kind; size_t offset, size; };
#define KEY(field, kind) {#field, kind, offsetof(struct gpu, field), sizeof((struct gpu *)0)->field}

static const struct key gpu_keys[] = {
  KEY(name, TEXT), KEY(uuid, TEXT), KEY(pci_bus_id, TEXT), KEY(ecc, TEXT), KEY(mig, TEXT),
  KEY(display, TEXT), KEY(cpus, TEXT), KEY(device_id, NUMBER), KEY(subsystem_id, NUMBER),
  KEY(memory_mib, NUMBER), KEY(reserved_mib, NUMBER), KEY(architecture, NUMBER),
  KEY(brand, NUMBER), KEY(numa_node, NUMBER), KEY(compute_major, NUMBER),
  KEY(compute_minor, NUMBER), KEY(temperature_c, NUMBER), KEY(pcie_gen, NUMBER),
  KEY(pcie_gen_max, NUMBER), KEY(pcie_width, NUMBER), KEY(pcie_width_max, NUMBER),
  KEY(power_w, NUMBER), KEY(power_limit_w, NUMBER), KEY(power_limit_default_w, NUMBER),
  KEY(power_limit_min_w, NUMBER), KEY(power_limit_max_w, NUMBER),
};

static const struct { const char *word; u32 value; } words[] = {
  {"PIX", 10}, {"PXB", 20}, {"PHB", 30}, {"NODE", 40}, {"SYS", 50}, /* nvmlGpuTopologyLevel_t */
  {"OK", 0}, {"CNS", 1}, {"GNS", 2}, {"TNS", 3}, {"DR", 4}, {"NS", 5}, {"U", 6}, /* nvmlGpuP2PStatus_t */
};

static u32 number_of(const char *text) {
  for (size_t i = 0; i < sizeof words / sizeof *words; i++)
    if (!strcmp(words[i].word, text)) return words[i].value;
  return (u32)strtoul(text, NULL, 0);
}

static char *trim(char *text) {
  while (isspace((unsigned char)*text)) text++;
  char *end = text + strlen(text);
  while (end > text && isspace((unsigned char)end[-1])) *--end = 0;
  return text;
}

static void set_gpu(struct gpu *gpu, const char *name, const char *value) {
  for (size_t i = 0; i < sizeof gpu_keys / sizeof *gpu_keys; i++) {
    const struct key *key = &gpu_keys[i];
    if (strcmp(key->name, name)) continue;
    char *at = (char *)gpu + key->offset;
    if (key->kind == TEXT) snprintf(at, key->size, "%s", value);
    else *(u64 *)at = strtoull(value, NULL, 0);
  }
}

static void set_pair(int a, int b, const char *name, const char *value) {
  struct pair *pair = &pairs[a][b];
  if (!strcmp(name, "path")) pair->ancestor = number_of(value);
  if (!strcmp(name, "p2p")) pair->p2p = number_of(value);
  if (!strcmp(name, "nvlinks")) pair->nvlinks = number_of(value);
  pairs[b][a] = *pair;
}

static void set_system(const char *name, const char *value) {
  if (!strcmp(name, "driver_version")) snprintf(driver_version, sizeof driver_version, "%s", value);
  if (!strcmp(name, "cuda_version")) snprintf(cuda_version, sizeof cuda_version, "%s", value);
}

static result load_table(void) {
  const char *path = getenv("SIMULATED_GPU_TABLE");
  FILE *file = fopen(path ? path : "/etc/simulated-gpu/table.ini", "r");
  if (!file) return DRIVER_NOT_LOADED;
  char buffer[512];
  int a = -1, b = -1;
  memset(gpus, 0, sizeof gpus);
  memset(pairs, 0, sizeof pairs);
  gpu_count = 0;
  while (fgets(buffer, sizeof buffer, file)) {
    char *line = trim(buffer), *value = strchr(line, '=');
    if (!*line || *line == '#' || *line == ';') continue;
    if (*line == '[') {
      a = b = -1;
      if (sscanf(line, "[gpu %d]", &a) == 1 && a >= 0 && a < MAX_GPUS && a >= gpu_count)
        gpu_count = a + 1;
      else sscanf(line, "[pair %d %d]", &a, &b);
      continue;
    }
    if (!value || a >= MAX_GPUS || b >= MAX_GPUS) continue;
    *value++ = 0;
    line = trim(line), value = trim(value);
    if (a < 0) set_system(line, value);
    else if (b < 0) set_gpu(&gpus[a], line, value);
    else set_pair(a, b, line, value);
  }
  fclose(file);
  return SUCCESS;
}

/* --- the processes behind a card ------------------------------------------------------------- */

static int read_text(const char *path, char *text, size_t size) {
  FILE *file = fopen(path, "r");
  if (!file) return 0;
  text[fread(text, 1, size - 1, file)] = 0;
  fclose(file);
  return 1;
}

static const char *state_path(int gpu, const char *name) {
  static char path[512];
  const char *root = getenv("SIMULATED_GPU_STATE");
  snprintf(path, sizeof path, "%s/%d/%s", root ? root : "/run/simulated-gpu", gpu, name);
  return path;
}

static int has_fault(int gpu, const char *word) {
  char text[64];
  return read_text(state_path(gpu, "fault"), text, sizeof text) && !strncmp(text, word, strlen(word));
}

static int is_lost(int gpu) { return has_fault(gpu, "lost"); }

static u32 recovery_action(int gpu) {
  char text[64];
  u32 action = 0;
  if (read_text(state_path(gpu, "fault"), text, sizeof text)) sscanf(text, "recovery %u", &action);
  return action;
}

static u64 ticks_of(u32 pid) {
  char path[64], text[1024];
  u64 user = 0, system = 0;
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  if (!read_text(path, text, sizeof text)) return 0;
  char *rest = strrchr(text, ')'); /* the command name may hold blanks and brackets */
  if (rest)
    sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system);
  return user + system;
}

static u64 anonymous_kib(u32 pid) {
  char path[64], text[4096];
  snprintf(path, sizeof path, "/proc/%u/status", pid);
  if (!read_text(path, text, sizeof text)) return 0;
  char *at = strstr(text, "RssAnon:");
  return at ? strtoull(at + 8, NULL, 10) : 0;
}

static int is_alive(u32 pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%u", pid);
  return access(path, F_OK) == 0;
}

static int processes_of(int gpu, struct process *found) {
  char text[128];
  int count = 0;
  struct process *next = &found[0];
  *next = (struct process){0, 0, 0};
  if (read_text(state_path(gpu, "server"), text, sizeof text) &&
      sscanf(text, "%u %llu", &next->pid, &next->idle_kib) == 2 && is_alive(next->pid))
    count++;
  DIR *directory = opendir(state_path(gpu, ""));
  if (!directory) return count;
  for (struct dirent *entry; (entry = readdir(directory)) && count < MAX_PROCESSES;) {
    u32 pid = (u32)strtoul(entry->d_name, NULL, 10);
    if (!pid || !is_alive(pid) || !read_text(state_path(gpu, entry->d_name), text, sizeof text))
      continue;
    u64 idle_kib = 0, claimed_kib = 0;
    sscanf(text, "%llu %llu", &idle_kib, &claimed_kib);
    found[count++] = (struct process){pid, idle_kib, claimed_kib};
  }
  closedir(directory);
  return count;
}

static u64 memory_of(const struct process *process) {
  u64 kib = anonymous_kib(process->pid);
  u64 held_kib = kib > process->idle_kib ? kib - process->idle_kib : 0;
  return (held_kib + process->claimed_kib) << 10;
}

static u64 total_of(int gpu) { return gpus[gpu].memory_mib << 20; }
static u64 reserved_of(int gpu) { return gpus[gpu].reserved_mib << 20; }

static u64 used_of(int gpu) {
  struct process found[MAX_PROCESSES];
  u64 sum = 0, most = total_of(gpu) - reserved_of(gpu);
  for (int i = processes_of(gpu, found); i-- > 0;) sum += memory_of(&found[i]);
  return sum < most ? sum : most;
}

static u64 ticks_on(int gpu) {
  struct process found[MAX_PROCESSES];
  u64 sum = 0;
  for (int i = processes_of(gpu, found); i-- > 0;) sum += ticks_of(found[i].pid);
  return sum;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void start_window(void) {
  for (int i = 0; i < gpu_count; i++) gpus[i].ticks = ticks_on(i);
  sampled_at = now();
}

/* All cards share one window, so asking for N cards costs one wait. A window that is still open is
 * closed by the next question; one older than KEEP_SECONDS says nothing about now and is redone. */
static void sample_utilization(void) {
  double age = now() - sampled_at;
  if (age < WINDOW_SECONDS / 2) return;
  if (age > KEEP_SECONDS) {
    start_window();
    usleep((useconds_t)(WINDOW_SECONDS * 1e6));
  }
  double seconds = now() - sampled_at;
  for (int i = 0; i < gpu_count; i++) {
    u64 before = gpus[i].ticks, after = ticks_on(i);
    double busy = after > before ? (double)(after - before) / (double)sysconf(_SC_CLK_TCK) : 0;
    double percent = 100 * busy / seconds + 0.5;
    gpus[i].utilization = percent > 100 ? 100 : (u32)percent;
  }
  start_window();
}

/* --- who uses a card: the clients of its ggml-rpc-server -------------------------------------- */

static int clients_sockets(int gpu, u64 *inodes, int most) {
  char line[512];
  int count = 0;
  FILE *file = fopen("/proc/net/tcp", "r");
  if (!file) return 0;
  while (fgets(line, sizeof line, file) && count < most) {
    u32 peer_port, state;
    u64 inode;
    if (sscanf(line, " %*d: %*x:%*x %*x:%x %x %*s %*s %*s %*d %*d %llu", &peer_port, &state,
               &inode) == 3 &&
        state == 1 && peer_port == (u32)(FIRST_PORT + gpu))
      inodes[count++] = inode;
  }
  fclose(file);
  return count;
}

static int holds_socket(u32 pid, u64 inode) {
  char path[300], target[64], wanted[64];
  snprintf(wanted, sizeof wanted, "socket:[%llu]", inode);
  snprintf(path, sizeof path, "/proc/%u/fd", pid);
  DIR *directory = opendir(path);
  int held = 0;
  if (!directory) return 0;
  for (struct dirent *entry; !held && (entry = readdir(directory));) {
    snprintf(path, sizeof path, "/proc/%u/fd/%.32s", pid, entry->d_name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    held = length > 0 && (target[length] = 0, !strcmp(target, wanted));
  }
  closedir(directory);
  return held;
}

/* The process whose traffic the server works for, or the server itself when the caller may not see
 * whose socket it is: descriptors of other users are readable for root only. */
static u32 client_of(int gpu, u32 server) {
  u64 inodes[8];
  int sockets = clients_sockets(gpu, inodes, 8);
  DIR *directory = sockets ? opendir("/proc") : NULL;
  u32 client = 0;
  if (!directory) return server;
  for (struct dirent *entry; !client && (entry = readdir(directory));) {
    u32 pid = (u32)strtoul(entry->d_name, NULL, 10);
    for (int i = 0; pid && pid != server && !client && i < sockets; i++)
      if (holds_socket(pid, inodes[i])) client = pid;
  }
  closedir(directory);
  return client ? client : server;
}

/* --- NVML: library and system ------------------------------------------------------------------ */

API result nvmlInit_v2(void) { return load_table(); }
API result nvmlInit(void) { return load_table(); }
API result nvmlInitWithFlags(u32 flags) { (void)flags; return load_table(); }
API result nvmlShutdown(void) { gpu_count = -1; return SUCCESS; }

API const char *nvmlErrorString(result code) {
  switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case RESET_REQUIRED: return "GPU requires reset";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
  }
  return "Unknown Error";
}

static result give_text(const char *text, char *out, u32 size) {
  if (strlen(text) + 1 > size) return INSUFFICIENT_SIZE;
  strcpy(out, text);
  return SUCCESS;
}

API result nvmlSystemGetDriverVersion(char *out, u32 size) {
  return give_text(driver_version, out, size);
}

API result nvmlSystemGetNVMLVersion(char *out, u32 size) {
  char text[96];
  snprintf(text, sizeof text, "%d.%s", atoi(cuda_version), driver_version);
  return give_text(text, out, size);
}

API result nvmlSystemGetCudaDriverVersion_v2(int *out) {
  int major = 0, minor = 0;
  sscanf(cuda_version, "%d.%d", &major, &minor);
  *out = 1000 * major + 10 * minor;
  return SUCCESS;
}

API result nvmlSystemGetCudaDriverVersion(int *out) { return nvmlSystemGetCudaDriverVersion_v2(out); }

API result nvmlDeviceGetCount_v2(u32 *out) {
  if (gpu_count < 0) return UNINITIALIZED;
  *out = (u32)gpu_count;
  return SUCCESS;
}

API result nvmlDeviceGetCount(u32 *out) { return nvmlDeviceGetCount_v2(out); }

/* --- NVML: handles ------------------------------------------------------------------------------ */

static result index_of(void *device, int *out) {
  ptrdiff_t at = (struct gpu *)device - gpus;
  if (gpu_count < 0) return UNINITIALIZED;
  if (at < 0 || at >= gpu_count) return INVALID_ARGUMENT;
  *out = (int)at;
  if (is_lost((int)at)) return GPU_IS_LOST;
  return has_fault((int)at, "reset") ? RESET_REQUIRED : SUCCESS;
}

/* Every query of one card begins here: `i` is its index, `gpu` its row of the table. */
#define CARD(device)                                  \
  int i;                                              \
  result status = index_of(device, &i);               \
  if (status != SUCCESS) return status;               \
  struct gpu *gpu = &gpus[i];                         \
  (void)gpu

API result nvmlDeviceGetHandleByIndex_v2(u32 index, void **out) {
  if (gpu_count < 0) return UNINITIALIZED;
  if (index >= (u32)gpu_count) return INVALID_ARGUMENT;
  if (is_lost((int)index)) return GPU_IS_LOST;
  *out = &gpus[index];
  return SUCCESS;
}

API result nvmlDeviceGetHandleByIndex(u32 index, void **out) {
  return nvmlDeviceGetHandleByIndex_v2(index, out);
}

API result nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
  for (int i = 0; i < gpu_count; i++)
    if (!strcmp(uuid, gpus[i].uuid)) return nvmlDeviceGetHandleByIndex_v2((u32)i, out);
  return NOT_FOUND;
}

struct address { u32 domain, bus, device; };

static struct address address_of(const char *text) {
  struct address at = {0, 0, 0};
  sscanf(text, "%x:%x:%x", &at.domain, &at.bus, &at.device);
  return at;
}

API result nvmlDeviceGetHandleByPciBusId_v2(const char *text, void **out) {
  struct address wanted = address_of(text);
  for (int i = 0; i < gpu_count; i++) {
    struct address at = address_of(gpus[i].pci_bus_id);
    if (!memcmp(&at, &wanted, sizeof at)) return nvmlDeviceGetHandleByIndex_v2((u32)i, out);
  }
  return NOT_FOUND;
}

API result nvmlDeviceGetHandleByPciBusId(const char *text, void **out) {
  return nvmlDeviceGetHandleByPciBusId_v2(text, out);
}

/* --- NVML: what a card is ----------------------------------------------------------------------- */

#define GIVE_NUMBER(function, type, value) \
  API result function(void *device, type *out) { CARD(device); *out = (type)(value); return SUCCESS; }

API result nvmlDeviceGetName(void *device, char *out, u32 size) {
  CARD(device);
  return give_text(gpu->name, out, size);
}

API result nvmlDeviceGetUUID(void *device, char *out, u32 size) {
  CARD(device);
  return give_text(gpu->uuid, out, size);
}

API result nvmlDeviceGetSerial(void *device, char *out, u32 size) {
  CARD(device);
  (void)out, (void)size;
  return NOT_SUPPORTED; /* GeForce cards have none */
}

/* nvmlFieldValue_t. Field 230 is the recovery action; the others are not known here. */
struct field {
  u32 id, scope;
  long long timestamp, latency;
  u32 type;
  int status;
  union { double d; u32 ui; unsigned long ul; u64 ull; } value;
};
enum { RECOVERY_ACTION = 230, VALUE_UNSIGNED_INT = 1 };

API result nvmlDeviceGetFieldValues(void *device, int count, struct field *fields) {
  CARD(device);
  for (int n = 0; n < count; n++) {
    int known = fields[n].id == RECOVERY_ACTION;
    fields[n].status = known ? SUCCESS : NOT_SUPPORTED;
    fields[n].type = VALUE_UNSIGNED_INT;
    fields[n].value.ull = known ? recovery_action(i) : 0;
  }
  return SUCCESS;
}

GIVE_NUMBER(nvmlDeviceGetIndex, u32, i)
GIVE_NUMBER(nvmlDeviceGetMinorNumber, u32, i)
GIVE_NUMBER(nvmlDeviceGetBrand, u32, gpu->brand)
GIVE_NUMBER(nvmlDeviceGetArchitecture, u32, gpu->architecture)
GIVE_NUMBER(nvmlDeviceGetNumaNodeId, u32, gpu->numa_node)
GIVE_NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, u32, gpu->pcie_gen)
GIVE_NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, u32, gpu->pcie_gen_max)
GIVE_NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration, u32, gpu->pcie_gen_max)
GIVE_NUMBER(nvmlDeviceGetCurrPcieLinkWidth, u32, gpu->pcie_width)
GIVE_NUMBER(nvmlDeviceGetMaxPcieLinkWidth, u32, gpu->pcie_width_max)
GIVE_NUMBER(nvmlDeviceGetPowerUsage, u32, gpu->power_w * 1000)
GIVE_NUMBER(nvmlDeviceGetEnforcedPowerLimit, u32, gpu->power_limit_w * 1000)
GIVE_NUMBER(nvmlDeviceGetPowerManagementLimit, u32, gpu->power_limit_w * 1000)
GIVE_NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, u32, gpu->power_limit_default_w * 1000)
GIVE_NUMBER(nvmlDeviceGetPersistenceMode, u32, 1)
GIVE_NUMBER(nvmlDeviceGetComputeMode, u32, 0)
GIVE_NUMBER(nvmlDeviceGetPerformanceState, u32, gpu->utilization ? 2 : 8)
GIVE_NUMBER(nvmlDeviceGetDisplayMode, u32, !strcmp(gpu->display, "yes"))
GIVE_NUMBER(nvmlDeviceGetDisplayActive, u32, !strcmp(gpu->display, "yes"))
GIVE_NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, u64, 0)
GIVE_NUMBER(nvmlDeviceGetCurrentClocksEventReasons, u64, 0)

API result nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
  CARD(device);
  *major = (int)gpu->compute_major;
  *minor = (int)gpu->compute_minor;
  return SUCCESS;
}

API result nvmlDeviceGetPowerManagementLimitConstraints(void *device, u32 *least, u32 *most) {
  CARD(device);
  *least = (u32)gpu->power_limit_min_w * 1000;
  *most = (u32)gpu->power_limit_max_w * 1000;
  return SUCCESS;
}

API result nvmlDeviceGetTemperature(void *device, u32 sensor, u32 *out) {
  CARD(device);
  (void)sensor;
  *out = (u32)gpu->temperature_c;
  return SUCCESS;
}

static result give_switch(const char *state, u32 *current, u32 *pending) {
  if (!*state) return NOT_SUPPORTED;
  *current = *pending = !strcmp(state, "on");
  return SUCCESS;
}

API result nvmlDeviceGetEccMode(void *device, u32 *current, u32 *pending) {
  CARD(device);
  return give_switch(gpu->ecc, current, pending);
}

API result nvmlDeviceGetMigMode(void *device, u32 *current, u32 *pending) {
  CARD(device);
  return give_switch(gpu->mig, current, pending);
}

struct pci_info { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; };

API result nvmlDeviceGetPciInfo_v3(void *device, struct pci_info *out) {
  CARD(device);
  struct address at = address_of(gpu->pci_bus_id);
  memset(out, 0, sizeof *out);
  out->domain = at.domain, out->bus = at.bus, out->device = at.device;
  out->id = (u32)gpu->device_id << 16 | 0x10de;
  out->subsystem = (u32)gpu->subsystem_id;
  snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", at.domain, at.bus, at.device);
  snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", at.domain & 0xffff, at.bus & 0xff,
           at.device & 0xff);
  return SUCCESS;
}

API result nvmlDeviceGetCpuAffinity(void *device, u32 size, unsigned long *out) {
  CARD(device);
  u32 first = 0, last = 0, bits = 8 * sizeof *out;
  int found = sscanf(gpu->cpus, "%u-%u", &first, &last);
  if (found < 1) return NOT_SUPPORTED;
  memset(out, 0, size * sizeof *out);
  for (u32 cpu = first; cpu <= (found == 2 ? last : first) && cpu < size * bits; cpu++)
    out[cpu / bits] |= 1ul << cpu % bits;
  return SUCCESS;
}

/* --- NVML: pairs --------------------------------------------------------------------------------- */

#define PAIR(device, other)                                        \
  CARD(device);                                                    \
  int j;                                                           \
  status = index_of(other, &j);                                    \
  if (status != SUCCESS) return status

API result nvmlDeviceGetTopologyCommonAncestor(void *device, void *other, u32 *out) {
  PAIR(device, other);
  *out = i == j ? 0 : pairs[i][j].ancestor;
  return SUCCESS;
}

/* Capability 2 is NVLink; the others (read, write, atomics, property) follow the table. */
API result nvmlDeviceGetP2PStatus(void *device, void *other, u32 capability, u32 *out) {
  PAIR(device, other);
  if (capability > 4) return INVALID_ARGUMENT;
  *out = capability == 2 ? (pairs[i][j].nvlinks ? 0 : 5) : pairs[i][j].p2p;
  return SUCCESS;
}

static int peer_of_link(int gpu, u32 link) {
  for (int j = 0; j < gpu_count; j++) {
    if (link < pairs[gpu][j].nvlinks) return j;
    link -= pairs[gpu][j].nvlinks;
  }
  return -1;
}

API result nvmlDeviceGetNvLinkState(void *device, u32 link, u32 *out) {
  CARD(device);
  if (peer_of_link(i, 0) < 0) return NOT_SUPPORTED;
  if (link >= 18) return INVALID_ARGUMENT;
  *out = peer_of_link(i, link) >= 0;
  return SUCCESS;
}

API result nvmlDeviceGetNvLinkVersion(void *device, u32 link, u32 *out) {
  CARD(device);
  if (peer_of_link(i, link) < 0) return NOT_SUPPORTED;
  *out = 3;
  return SUCCESS;
}

API result nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, u32 link, struct pci_info *out) {
  CARD(device);
  int peer = peer_of_link(i, link);
  return peer < 0 ? NOT_SUPPORTED : nvmlDeviceGetPciInfo_v3(&gpus[peer], out);
}

/* --- NVML: what a card does ----------------------------------------------------------------------- */

struct memory_v1 { u64 total, free, used; };
struct memory_v2 { u32 version; u64 total, reserved, free, used; };
struct utilization { u32 gpu, memory; };
struct running { u32 pid; u64 used; u32 gpu_instance, compute_instance; };

/* v1 counts the reserved part as used, v2 reports it apart (nvml.h). */
API result nvmlDeviceGetMemoryInfo(void *device, struct memory_v1 *out) {
  CARD(device);
  out->total = total_of(i);
  out->used = used_of(i) + reserved_of(i);
  out->free = out->total - out->used;
  return SUCCESS;
}

API result nvmlDeviceGetMemoryInfo_v2(void *device, struct memory_v2 *out) {
  CARD(device);
  if (out->version != (sizeof *out | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
  out->total = total_of(i);
  out->reserved = reserved_of(i);
  out->used = used_of(i);
  out->free = out->total - out->reserved - out->used;
  return SUCCESS;
}

API result nvmlDeviceGetBAR1MemoryInfo(void *device, struct memory_v1 *out) {
  CARD(device);
  *out = (struct memory_v1){256ull << 20, 254ull << 20, 2ull << 20};
  return SUCCESS;
}

API result nvmlDeviceGetUtilizationRates(void *device, struct utilization *out) {
  CARD(device);
  sample_utilization();
  *out = (struct utilization){gpu->utilization, gpu->utilization / 2};
  return SUCCESS;
}

API result nvmlDeviceGetComputeRunningProcesses_v3(void *device, u32 *count, struct running *out) {
  CARD(device);
  struct process found[MAX_PROCESSES];
  struct running users[MAX_PROCESSES];
  u32 room = *count, used = 0;
  char text[64];
  u32 server = 0;
  if (read_text(state_path(i, "server"), text, sizeof text)) server = (u32)strtoul(text, NULL, 10);
  for (int k = 0, all = processes_of(i, found); k < all; k++) {
    u32 pid = found[k].pid == server ? client_of(i, server) : found[k].pid;
    u64 memory = memory_of(&found[k]);
    if (pid == server && memory < 1 << 20) continue; /* nobody is connected */
    users[used++] = (struct running){pid, memory, 0xffffffff, 0xffffffff};
  }
  *count = used;
  if (used > room || (used && !out)) return INSUFFICIENT_SIZE;
  if (used) memcpy(out, users, used * sizeof *users);
  return SUCCESS;
}

API result nvmlDeviceGetComputeRunningProcesses_v2(void *device, u32 *count, struct running *out) {
  return nvmlDeviceGetComputeRunningProcesses_v3(device, count, out);
}

API result nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, u32 *count, struct running *out) {
  CARD(device);
  (void)out;
  *count = 0;
  return SUCCESS;
}
