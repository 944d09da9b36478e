#include "simulator/executor.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace simulator {
namespace {

// The files the process inherits.
constexpr int kSocket = 3;
constexpr int kData = 4;
constexpr int kWritten = 5;
constexpr int kFirstOther = 6;

bool SendAll(int socket, const char* bytes, size_t nbytes) {
  while (nbytes != 0) {
    const ssize_t sent = send(socket, bytes, nbytes, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes += sent;
    nbytes -= static_cast<size_t>(sent);
  }
  return true;
}

bool ReceiveAll(int socket, char* bytes, size_t nbytes) {
  while (nbytes != 0) {
    const ssize_t got = recv(socket, bytes, nbytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    bytes += got;
    nbytes -= static_cast<size_t>(got);
  }
  return true;
}

// In the new process: only calls that are safe after fork, since the parent may have threads.
[[noreturn]] void Become(const char* command, int socket, int data, int written) {
  const int nothing = open("/dev/null", O_RDONLY);
  // First out of the way of the numbers they are to have.
  const int from[] = {fcntl(socket, F_DUPFD, 64), fcntl(data, F_DUPFD, 64),
                      fcntl(written, F_DUPFD, 64)};
  dup2(nothing, STDIN_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  dup2(from[0], kSocket);
  dup2(from[1], kData);
  dup2(from[2], kWritten);
  // The caller's other files are its own: a pipe held open here would never end for its reader.
  if (syscall(SYS_close_range, kFirstOther, ~0u, 0) != 0) {
    for (int file = kFirstOther; file < 1024; ++file) close(file);
  }
  // What the caller blocks or ignores is not for Python to inherit; but an interrupt from the
  // terminal is the caller's to handle: the process ends with it.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGINT, SIG_IGN);
  const char* const arguments[] = {"sh", "-c", command, nullptr};
  execv("/bin/sh", const_cast<char* const*>(arguments));
  _exit(127);
}

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) {
    return std::string("was killed by signal ") + std::to_string(WTERMSIG(status)) + " (" +
           strsignal(WTERMSIG(status)) + ")";
  }
  return "ended with status " + std::to_string(WEXITSTATUS(status));
}

void SleepMilliseconds(long milliseconds) {  // NOLINT(runtime/int)
  const timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&time, nullptr);
}

}  // namespace

ExecutorProcess::Reply ExecutorProcess::Ask(DeviceMemory* memory, const std::string& head,
                                            const std::string& body) {
  if (ended_.empty() && pid_ < 0) ended_ = Start(memory);
  if (!ended_.empty()) return {"", ended_};
  const std::string events = memory->TakeEvents();
  Reply reply;
  if ((events.empty() || Send("memory", events)) && Send(head, body) && Receive(&reply)) {
    return reply;
  }
  ended_ = Ended("in the middle of its work");
  return {"", ended_};
}

void ExecutorProcess::Tell(const std::string& head) {
  if (ended_.empty() && pid_ >= 0) static_cast<void>(Send(head, ""));
}

std::string ExecutorProcess::Start(DeviceMemory* memory) {
  const char* command = std::getenv("SIMULATOR_EXECUTOR");
  if (command == nullptr || *command == '\0') {
    return "there is no executor to run kernels: set SIMULATOR_EXECUTOR to its command, such as "
           "\"python -m simulator.executor\"";
  }
  command_ = command;
  std::string fault = memory->Reserve();
  if (!fault.empty()) return fault;
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return std::string("socketpair: ") + std::strerror(errno);
  }
  // With exec, so that the process is the executor and not a shell that waits for it.
  const std::string line = "exec " + command_ + " --socket " + std::to_string(kSocket) +
                           " --data " + std::to_string(kData) + " --written " +
                           std::to_string(kWritten);
  pid_ = fork();
  if (pid_ == 0) Become(line.c_str(), ends[1], memory->data_file(), memory->written_file());
  close(ends[1]);
  socket_ = ends[0];
  if (pid_ < 0) return std::string("fork: ") + std::strerror(errno);
  Reply reply;
  const std::string hello = "hello base=" + std::to_string(memory->base()) +
                            " size=" + std::to_string(memory->size()) +
                            " parent=" + std::to_string(getpid());
  if (!Send(hello, "") || !Receive(&reply) || reply.head != "ready") {
    return Ended("before it was ready");
  }
  return "";
}

std::string ExecutorProcess::Ended(const std::string& when) {
  close(socket_);
  socket_ = -1;
  int status = 0;
  pid_t ended = 0;
  // It has closed its end of the socket, so it is about to end, if it has not been stopped.
  for (int i = 0; i < 500 && ended == 0; ++i) {
    ended = waitpid(pid_, &status, WNOHANG);
    if (ended == 0) SleepMilliseconds(10);
  }
  std::string how = "ended";
  if (ended == pid_) how = HowItEnded(status);
  if (ended == 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, &status, 0);
    how = "closed its connection";
  }
  pid_ = -1;
  return "the executor (SIMULATOR_EXECUTOR=" + command_ + ") " + how + " " + when +
         "; what it printed tells more";
}

bool ExecutorProcess::Send(const std::string& head, const std::string& body) const {
  std::string message(8, '\0');
  const uint64_t nbytes = head.size() + 1 + body.size();
  for (int i = 0; i < 8; ++i) message[static_cast<size_t>(i)] = static_cast<char>(nbytes >> 8 * i);
  message += head + "\n" + body;
  return SendAll(socket_, message.data(), message.size());
}

bool ExecutorProcess::Receive(Reply* reply) const {
  unsigned char header[8];
  if (!ReceiveAll(socket_, reinterpret_cast<char*>(header), sizeof header)) return false;
  uint64_t nbytes = 0;
  for (int i = 7; i >= 0; --i) nbytes = nbytes << 8 | header[i];
  if (nbytes > uint64_t{1} << 30) return false;
  std::string message(nbytes, '\0');
  if (!ReceiveAll(socket_, message.data(), nbytes)) return false;
  const size_t line = message.find('\n');
  if (line == std::string::npos) return false;
  reply->head = message.substr(0, line);
  reply->body = message.substr(line + 1);
  return true;
}

void ExecutorProcess::Stop() {
  if (pid_ < 0) return;
  close(socket_);
  socket_ = -1;
  int status = 0;
  // It ends when the socket does; it may be in the middle of a kernel.
  for (int i = 0; i < 200 && waitpid(pid_, &status, WNOHANG) == 0; ++i) {
    if (i == 100) kill(pid_, SIGKILL);
    SleepMilliseconds(10);
  }
  pid_ = -1;
  ended_ = "the executor has ended, because this process is ending";
}

}  // namespace simulator
