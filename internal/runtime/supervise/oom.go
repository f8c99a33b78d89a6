package supervise

// watchOOM begins to watch for processes of the container that the kernel kills for want of memory.
func (c *container) watchOOM() {}
