"""The oracle's KV cache: a pool of blocks with owners, chained hashes, and the tables of sequences."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from tests.reference_records import Block, Options, Sequence

ROOT_HASH = 0
"""Parent of the first block."""


class BlockPool:
    """Blocks, the least-recently-used queue of those without an owner, and the table of hashes (vLLM)."""

    def __init__(self, num_blocks: int) -> None:
        self.blocks = [Block(block_id) for block_id in range(num_blocks)]
        self.free = deque(self.blocks)
        self.cached: dict[int, Block] = {}

    def allocate(self) -> Block:
        """Reuse a block without an owner; what it cached is lost."""
        block = self._evictable()
        self.free.remove(block)
        if block.block_hash is not None:
            self._forget(block)
        block.num_owners = 1
        return block

    def share(self, block: Block) -> None:
        """One more owner; the block leaves the free queue if it was there."""
        if block.num_owners == 0:
            self.free.remove(block)
        block.num_owners += 1

    def release(self, block: Block) -> None:
        """One owner less; the last one puts the block at the tail of the free queue, its hash intact."""
        block.num_owners -= 1
        if block.num_owners == 0:
            self.free.append(block)

    def seal(self, block: Block, block_hash: int, parent_hash: int) -> Block:
        """Make a full block findable, unless another holds the same content. Returns the one its owner keeps."""
        if block_hash not in self.cached:
            self._remember(block, block_hash, parent_hash)
        return block

    def _evictable(self) -> Block:
        """The one that was freed longest ago."""
        return self.free[0]

    def _remember(self, block: Block, block_hash: int, parent_hash: int) -> None:
        self.cached[block_hash] = block
        block.block_hash, block.parent_hash = block_hash, parent_hash

    def _forget(self, block: Block) -> None:
        assert block.block_hash is not None
        del self.cached[block.block_hash]
        block.block_hash = None


class RadixPool(BlockPool):
    """Cached blocks form a tree that loses its leaves first, and equal content is stored once (SGLang)."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__(num_blocks)
        self.num_children: Counter[int] = Counter()
        """Of each hash, the cached blocks that follow it."""

    def release(self, block: Block) -> None:
        """What cannot be found again is reused first."""
        block.num_owners -= 1
        if block.num_owners == 0 and block.block_hash is None:
            self.free.appendleft(block)
        elif block.num_owners == 0:
            self.free.append(block)

    def seal(self, block: Block, block_hash: int, parent_hash: int) -> Block:
        """A block whose content is cached already is given up for the cached one."""
        twin = self.cached.get(block_hash)
        if twin is None or twin is block:
            return super().seal(block, block_hash, parent_hash)
        self.share(twin)
        self.release(block)
        return twin

    def _evictable(self) -> Block:
        """The first without cached successors; where windows have slid on, successors may outlive their parents."""
        leaves = (block for block in self.free if block.block_hash is None or not self.num_children[block.block_hash])
        return next(leaves, self.free[0])

    def _remember(self, block: Block, block_hash: int, parent_hash: int) -> None:
        super()._remember(block, block_hash, parent_hash)
        self.num_children[parent_hash] += 1

    def _forget(self, block: Block) -> None:
        super()._forget(block)
        self.num_children[block.parent_hash] -= 1


class KvCache:
    """Block tables of sequences over one pool.

    content(row, index) names the content of block `index` of a visit, prompt and generated tokens alike; equal names
    in equal positions after equal predecessors are equal blocks.
    """

    def __init__(self, options: Options, content: Callable[[int, int], int]) -> None:
        self.options = options
        self.content = content
        self.pool = RadixPool(options.num_blocks) if options.prefix_cache == "radix" else BlockPool(options.num_blocks)
        self.hash_ids: dict[tuple[int, int], int] = {}
        self.num_swapped_blocks = 0
        """In use of the swap space."""

    @property
    def num_free(self) -> int:
        return len(self.pool.free)

    def num_blocks(self, num_tokens: int) -> int:
        """Entries in the table of a sequence that stores so many tokens."""
        return -(-num_tokens // self.options.block_tokens)

    def cost(self, num_blocks: int) -> int:
        """Pool blocks of a table with so many entries."""
        return num_blocks + self._num_extras(num_blocks)

    def num_missing(self, sequence: Sequence, num_tokens: int) -> int:
        """Pool blocks that a sequence needs beside those it owns, to store so many tokens (rule 9)."""
        num_needed = self.num_blocks(num_tokens)
        entries = max(num_needed - len(sequence.blocks), 0)
        return entries + max(self._num_extras(num_needed) - len(sequence.window_extras), 0)

    def num_on_host(self, num_tokens: int) -> int:
        """Blocks that hold the KV of so many tokens, as far as the next one looks back."""
        return self.num_blocks(num_tokens) - self.first_in_window(num_tokens)

    def first_in_window(self, num_computed: int) -> int:
        """Index of the first block that the next token still looks at."""
        if not self.options.all_layers_slide:
            return 0
        return max(num_computed // self.options.block_tokens + 1 - self.options.window_blocks, 0)

    def grow(self, sequence: Sequence, num_tokens: int) -> None:
        """Fresh blocks, as many as are missing."""
        num_needed = self.num_blocks(num_tokens)
        while len(sequence.blocks) < num_needed:
            sequence.blocks.append(self.pool.allocate())
        while len(sequence.window_extras) < self._num_extras(num_needed):
            sequence.window_extras.append(self.pool.allocate())

    def slide(self, sequence: Sequence) -> None:
        """Give up what no token to come can see, last one first."""
        num_out = self.first_in_window(sequence.num_computed)
        for index in reversed(range(min(num_out, len(sequence.blocks)))):
            block = sequence.blocks[index]
            if block is not None:
                self.pool.release(block)
                sequence.blocks[index] = None

    def release(self, sequence: Sequence) -> None:
        """Last block first: the front of a prefix, which more requests share, is reused last."""
        for extra in reversed(sequence.window_extras):
            self.pool.release(extra)
        for block in reversed(sequence.blocks):
            if block is not None:
                self.pool.release(block)
        sequence.blocks, sequence.window_extras, sequence.num_sealed = [], [], 0

    def hits(self, sequence: Sequence) -> list[Block]:
        """Cached blocks from the front up to the first miss; the last known token is always computed anew."""
        hits: list[Block] = []
        if not self.options.prefix_caching:
            return hits
        for index in range((sequence.num_tokens - 1) // self.options.block_tokens):
            block = self.pool.cached.get(self.block_hash(sequence, index))
            if block is None:
                break
            hits.append(block)
        return hits

    def in_window(self, hits: list[Block]) -> list[Block]:
        """Hits that the next token looks at."""
        return hits[self.first_in_window(len(hits) * self.options.block_tokens) :]

    def take_hits(self, sequence: Sequence, hits: list[Block]) -> None:
        """Share cached blocks; they are the first of the table."""
        shared = self.in_window(hits)
        for block in shared:
            self.pool.share(block)
        sequence.blocks = [None] * (len(hits) - len(shared)) + list(shared)
        sequence.num_sealed = len(hits)
        sequence.num_computed = len(hits) * self.options.block_tokens

    def seal(self, sequence: Sequence, num_tokens: int) -> None:
        """Offer the blocks that are full with so many tokens to the prefix cache."""
        if not self.options.prefix_caching:
            return
        for index in range(sequence.num_sealed, num_tokens // self.options.block_tokens):
            block = sequence.blocks[index]
            if block is not None:
                parent_hash = self.block_hash(sequence, index - 1) if index else ROOT_HASH
                sequence.blocks[index] = self.pool.seal(block, self.block_hash(sequence, index), parent_hash)
            sequence.num_sealed = index + 1

    def fork(self, parent: Sequence, sample: Sequence) -> None:
        """A sample shares the full blocks of its parent's prompt; the block begun is copied when it first runs."""
        num_full = parent.num_prompt // self.options.block_tokens
        sample.blocks = parent.blocks[:num_full]
        for block in sample.blocks:
            if block is not None:
                self.pool.share(block)
        sample.num_computed = parent.num_prompt
        sample.num_sealed = min(parent.num_sealed, num_full)
        sample.is_copied = parent.num_prompt % self.options.block_tokens == 0

    def can_swap_out(self, num_tokens: int) -> bool:
        """Whether the host has room for the KV of so many tokens."""
        num_blocks = self.num_on_host(num_tokens)
        return num_blocks > 0 and self.num_swapped_blocks + num_blocks <= self.options.swap_blocks

    def swap_out(self, sequence: Sequence) -> int:
        """Copy what is computed to the host; returns the blocks copied. They are still to be released here."""
        sequence.num_swapped_blocks = self.num_on_host(sequence.num_computed)
        self.num_swapped_blocks += sequence.num_swapped_blocks
        return sequence.num_swapped_blocks

    def can_swap_in(self, sequence: Sequence) -> bool:
        """Whether blocks for all its tokens are free."""
        first = self.first_in_window(sequence.num_computed)
        return self.cost(self.num_blocks(sequence.num_tokens)) - first <= self.num_free

    def swap_in(self, sequence: Sequence) -> int:
        """Copy back; returns the blocks copied."""
        num_blocks, sequence.num_swapped_blocks = sequence.num_swapped_blocks, 0
        self.num_swapped_blocks -= num_blocks
        sequence.blocks = [None] * self.first_in_window(sequence.num_computed)
        self.grow(sequence, sequence.num_computed)
        self.seal(sequence, sequence.num_computed)
        return num_blocks

    def block_hash(self, sequence: Sequence, index: int) -> int:
        """Chained hash of a leading block: one number for each distinct (parent, content), so without collisions."""
        hashes = sequence.block_hashes
        while len(hashes) <= index:
            link = (hashes[-1] if hashes else ROOT_HASH, self.content(sequence.row, len(hashes)))
            hashes.append(self.hash_ids.setdefault(link, len(self.hash_ids) + 1))
        return hashes[index]

    def _num_extras(self, num_blocks: int) -> int:
        return self.options.window_groups * min(self.options.window_blocks, num_blocks)
