// What a test may change of the HIP that fake.cc plays.

#ifndef AOTI_TESTS_RUNTIME_HIP_FAKE_H_
#define AOTI_TESTS_RUNTIME_HIP_FAKE_H_

struct FakeHip {
  int version;
  const char* architecture;  // as hipDeviceProp_t::gcnArchName
  int shared_memory;         // what a kernel may use of it, in bytes
};

// Found by dlsym.
extern "C" FakeHip* fake_hip();

#endif  // AOTI_TESTS_RUNTIME_HIP_FAKE_H_
