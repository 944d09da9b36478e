// The executor process, which runs kernels: simulator/executor.py.
//
// It is started when the first module of machine code or PTX is loaded, shares device memory, and
// is told what to do over a socket. A message is a length, as 8 bytes, least first, and that many
// bytes: a line of words, then a body. Every request but "memory" and "unload" is answered.
//
//   hello base=B size=N              ready
//   memory; lines of events
//   module ID; the image             module; a text image (simulator/image.h)
//                                    | refused; why it is no module
//                                    | failed CODE; why it cannot be run
//   launch ID NUMBER GX GY GZ BX BY BZ CLUSTER SHARED ORIGIN; the parameter buffer
//                                    done | fault CODE; the report
//   unload ID

#ifndef AOTI_SIMULATOR_EXECUTOR_H_
#define AOTI_SIMULATOR_EXECUTOR_H_

#include <sys/types.h>

#include <string>

#include "simulator/memory.h"

namespace simulator {

class ExecutorProcess {
 public:
  // What came back; `head` is "" if the process is gone, and `body` then says how it ended.
  struct Reply {
    std::string head;
    std::string body;
  };

  // Starts the process if it does not run yet, and tells it what happened in memory.
  Reply Ask(DeviceMemory* memory, const std::string& head, const std::string& body);

  // Tells it something that has no answer, if it runs.
  void Tell(const std::string& head);

  // Ends it.
  void Stop();

 private:
  std::string Start(DeviceMemory* memory);
  std::string Ended(const std::string& when);
  bool Send(const std::string& head, const std::string& body) const;
  bool Receive(Reply* reply) const;

  pid_t pid_ = -1;
  int socket_ = -1;
  std::string ended_;  // once it is gone
  std::string command_;
};

}  // namespace simulator

#endif  // AOTI_SIMULATOR_EXECUTOR_H_
