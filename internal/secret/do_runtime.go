//go:build goexperiment.runtimesecret

package secret

import "runtime/secret"

// ByRuntime says whether Do has the runtime erase the registers, the stack and the heap that its function used.
const ByRuntime = true

// Do calls f, which derives keys, and erases what it left behind: registers and stack at once, what it allocated when the
// garbage collector finds it unused. On systems that the runtime can't do that for it calls f only.
func Do(f func()) { secret.Do(f) }
