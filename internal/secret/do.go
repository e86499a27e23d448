//go:build !goexperiment.runtimesecret

package secret

// ByRuntime says whether Do has the runtime erase the registers, the stack and the heap that its function used.
const ByRuntime = false

// Do calls f, which derives keys, and erases what it left behind on the stack, as [OnClearedStack] does.
func Do(f func()) { OnClearedStack(f) }
