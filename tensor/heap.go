package tensor

// placed is something that can be in a heap: it knows its slot, so that it can be moved and taken out from the middle.
type placed[T any] interface {
	// before reports whether it is to be taken out earlier than the other.
	before(T) bool
	// place returns where its slot in the heap is kept.
	place() *int
}

// heap is a binary heap: its first element is the one to be taken out next.
type heap[T placed[T]] []T

func (h *heap[T]) push(x T) {
	*x.place() = len(*h)
	*h = append(*h, x)
	h.up(len(*h) - 1)
}

func (h *heap[T]) remove(x T) {
	var none T
	i, last := *x.place(), len(*h)-1
	h.swap(i, last)
	(*h)[last] = none
	*h = (*h)[:last]
	if i < last {
		h.fix((*h)[i])
	}
}

// fix restores the order after x has changed.
func (h *heap[T]) fix(x T) {
	h.up(*x.place())
	h.down(*x.place())
}

func (h heap[T]) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].place(), *h[j].place() = i, j
}

func (h heap[T]) up(i int) {
	for i > 0 && h[i].before(h[(i-1)/2]) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (h heap[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			return
		}
		h.swap(i, child)
		i = child
	}
}
