/** A first-in-first-out queue whose shift() does not move what stays. */
export class Queue<T> implements Iterable<T> {
  #items: T[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  peek(): T | undefined {
    return this.#items[this.#head];
  }

  shift(): T | undefined {
    if (this.length === 0) return undefined;
    const item = this.#items[this.#head];
    // Not kept alive until the array is cut.
    this.#items[this.#head] = undefined as T;
    this.#head += 1;
    if (this.#head > 1024 && this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
    return item;
  }

  /** Keep what `keep` says, give the rest. */
  remove(keep: (item: T) => boolean): T[] {
    const all = [...this];
    this.#items = all.filter(keep);
    this.#head = 0;
    return all.filter((item) => !keep(item));
  }

  clear(): T[] {
    return this.remove(() => false);
  }

  *[Symbol.iterator](): Iterator<T> {
    for (let i = this.#head; i < this.#items.length; i += 1) yield this.#items[i]!;
  }
}
