/* The file a runtime starts for every call: hands it to podwire-node (pkg/cni-server/wire.ts), or, when
 * that does not take it at once, runs podwire-cni beside it. No library: it must start on any node, fast. */
#include <fcntl.h>
#include <linux/errno.h>
#include <linux/un.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#define ANSWER_SECONDS 90 /* a runtime gives up after two minutes */
#define ERROR(code, text) fail("{\"cniVersion\":\"1.1.0\",\"code\":" #code ",\"msg\":\"" text "\"}\n")
typedef unsigned int u32;
#if defined(__x86_64__)
__asm__(".globl _start; _start: xor %ebp, %ebp; mov %rsp, %rdi; and $-16, %rsp; call run");
static long call(long n, long a, long b, long c, long d, long e) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = 0; /* sixth arguments are all 0 */
  __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return n;
}
#elif defined(__aarch64__)
__asm__(".globl _start; _start: mov x29, #0; mov x0, sp; and sp, x0, #-16; bl run");
static long call(long n, long a, long b, long c, long d, long e) {
  register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
                x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = 0;
  __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#endif
static struct { u32 magic, length, strings, zero; unsigned long view[6]; char rest[(4 << 20) - 64]; } request;
static u32 answer[3], end, strings; /* what request.rest holds in all, and in strings before standard input */
static char bytes[65536], program[4096], **arguments, **environment;
static u32 length(const char *s) { u32 n = 0; while (s[n]) n++; return n; }
static void print(int fd, const char *s, long n) { for (long k; n > 0 && (k = call(SYS_write, fd, (long)s, n, 0, 0)) > 0; n -= k) s += k; }
static void finish(int code) { for (;;) call(SYS_exit_group, code, 0, 0, 0, 0); }
static void fail(const char *s) { print(1, s, length(s)); finish(1); }
static const char *variable(const char *name) { /* its value, or 0 */
  for (char **at = environment; *at; at++) { u32 i = 0; while (name[i] && (*at)[i] == name[i]) i++; if (!name[i]) return *at + i; }
  return 0;
}
static void add(const char *s) {
  u32 n = length(s) + 1;
  if (n > sizeof request.rest - end) ERROR(4, "Cannot take the environment: expected less than 4 MB");
  for (u32 i = 0; i < n; i++) request.rest[end++] = s[i];
}
static void identify(const char *path, unsigned long *id) { /* stays 0 when there is nothing */
  struct stat st;
  if (path && *path && !call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&st, 0, 0)) id[0] = st.st_dev, id[1] = st.st_ino;
}
static void standalone(void) {
  long n = call(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)program, sizeof program - 16, 0);
  while (n > 0 && program[n - 1] != '/') n--;
  for (u32 i = 0; i < sizeof "podwire-cni"; i++) program[(n > 0 ? n : 0) + i] = "podwire-cni"[i];
  if (strings) { /* standard input has been read: a file in memory takes its place */
    int fd = call(SYS_memfd_create, (long)"stdin", 0, 0, 0, 0);
    print(fd, request.rest + strings, end - strings);
    call(SYS_lseek, fd, 0, 0, 0, 0);
    call(SYS_dup3, fd, 0, 0, 0, 0);
  }
  call(SYS_execve, (long)program, (long)arguments, (long)environment, 0, 0);
  ERROR(50, "Cannot run podwire-cni: expected it beside this program, and /proc mounted");
}
static void timeout(int fd, long seconds) {
  long time[2] = {seconds, 0};
  for (int i = 0; i < 2; i++) call(SYS_setsockopt, fd, SOL_SOCKET, i ? SO_RCVTIMEO : SO_SNDTIMEO, (long)time, sizeof time);
}
static int receive(int fd, void *to, long n) { return call(SYS_recvfrom, fd, (long)to, n, MSG_WAITALL, 0) == n; }
static void unknown(char command) { /* the daemon took the request, and is gone */
  if (command == 'A') ERROR(11, "Cannot tell whether the pod was added: podwire-node went away");
  standalone(); /* all but ADD may be done twice */
}
__attribute__((used)) void run(long *stack) {
  arguments = (char **)(stack + 1), environment = arguments + stack[0] + 1;
  const char *command = variable("CNI_COMMAND=");
  if (!command || !*command || !arguments[0]) standalone();
  add(arguments[0]);
  for (char **at = environment; *at; at++) add(*at), strings = end;
  struct pollfd input = {0, POLLIN, 0};
  for (long n = 1; *command != 'V' && n > 0; end += n > 0 ? n : 0) { /* nobody need write to ask for the version */
    if (end == sizeof request.rest) ERROR(6, "Cannot take the configuration: expected less than 4 MB");
    while ((n = call(SYS_read, 0, (long)request.rest + end, sizeof request.rest - end, 0, 0)) == -EAGAIN) call(SYS_ppoll, (long)&input, 1, 0, 0, 0);
  }
  request.magic = 0x31494e43, request.strings = strings, request.length = sizeof request - sizeof request.rest - 8 + end;
  identify("/", request.view), identify("/proc/self/ns/net", request.view + 2), identify(variable("CNI_NETNS="), request.view + 4);
  struct sockaddr_un to = {AF_UNIX, RUN_DIR "/cni.sock"}, remove = {AF_UNIX, RUN_DIR "/cni-del.sock"};
  int fd = call(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0);
  timeout(fd, PATIENCE_SECONDS); /* for all until the call is taken */
  if (call(SYS_connect, fd, (long)(*command == 'D' || *command == 'G' ? &remove : &to), sizeof to, 0, 0)) standalone();
  if (call(SYS_sendto, fd, (long)&request, request.length + 8, MSG_NOSIGNAL, 0) != request.length + 8) standalone(); /* half is none */
  if (!receive(fd, bytes, 1)) { /* nobody is free, or alive; from here on nobody can take it */
    call(SYS_shutdown, fd, SHUT_RD, 0, 0, 0);
    receive(fd, bytes, 1) ? unknown(*command) : standalone(); /* unless somebody just has */
  }
  if (*bytes != 'T') standalone();
  timeout(fd, ANSWER_SECONDS);
  if (!receive(fd, answer, sizeof answer)) unknown(*command);
  for (u32 part = 1, n, k; part <= 2; part++)
    for (n = answer[part]; n > 0; n -= k, print(part, bytes, k))
      if (!receive(fd, bytes, k = n < sizeof bytes ? n : sizeof bytes)) unknown(*command);
  finish(answer[0]);
}
