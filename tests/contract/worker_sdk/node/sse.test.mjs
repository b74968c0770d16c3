/** The reader of frames, on bytes cut into pieces at every place. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FrameParser, MAX_FRAME_LENGTH } from './node_modules/@quarterdeck/worker-sdk/dist/sse.js';

const bytes = (text) => new TextEncoder().encode(text);

function read(pieces, parser = new FrameParser()) {
  return pieces.flatMap((piece) => parser.feed(piece));
}

const CASES = {
  'a byte order mark, and two line feeds': ['\uFEFFdata: a\n\n', [['', 'message', 'a']]],
  'carriage returns alone': ['data: a\r\revent: x\rdata: b\r\r', [['', 'message', 'a'], ['', 'x', 'b']]],
  'both together': ['data: a\r\n\r\ndata: b\r\n\r\n', [['', 'message', 'a'], ['', 'message', 'b']]],
  'all three mixed': [
    'data: a\r\ndata: b\ndata: c\r\n\rdata: d\n\r\n',
    [['', 'message', 'a\nb\nc'], ['', 'message', 'd']],
  ],
  'characters of two to four bytes': ['data: ü 日 🦆\n\n', [['', 'message', 'ü 日 🦆']]],
  'line separators that end no line': ['data: a\u2028b\u0085c\u000bd\n\n', [['', 'message', 'a\u2028b\u0085c\u000bd']]],
  'comments': [':\n: data: no\ndata: a\n:c\n\n', [['', 'message', 'a']]],
  'one space after the colon, or none, or two': ['data:a\ndata: b\ndata:  c\n\n', [['', 'message', 'a\nb\n c']]],
  'a field without a colon': ['data\n\ndata\ndata\n\n', [['', 'message', ''], ['', 'message', '\n']]],
  'a mark that is not at the start': ['data: a\n\n\uFEFFdata: b\n\n', [['', 'message', 'a']]],
  'an id that stays': [
    'id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n',
    [['1', 'message', 'a'], ['1', 'message', 'b'], ['', 'message', 'c']],
  ],
  'an id with NUL': ['id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n', [['1', 'message', 'a'], ['1', 'message', 'b']]],
  'an event without data': ['event: x\nid: 4\n\ndata: b\n\n', [['4', 'message', 'b']]],
  'unknown fields': ['foo: bar\nDATA: no\n data: no\ndata: a\n\n', [['', 'message', 'a']]],
  'an end without a blank line': ['data: a\n\nid: 7\ndata: b\n', [['', 'message', 'a']]],
};

for (const [name, [text, frames]] of Object.entries(CASES)) {
  const expected = frames.map(([id, event, data]) => ({ id, event, data }));
  test(`${name}, cut anywhere`, () => {
    const all = bytes(text);
    assert.deepEqual(read([all]), expected);
    assert.deepEqual(read([...all].map((byte) => Uint8Array.of(byte))), expected);
    for (let i = 0; i <= all.length; i += 1) {
      for (let k = i; k <= all.length; k += 1) {
        assert.deepEqual(read([all.subarray(0, i), all.subarray(i, k), all.subarray(k)]), expected, `${i} ${k}`);
      }
    }
  });
}

test('an LF right behind a CR at the end of a piece is no blank line', () => {
  const parser = new FrameParser();
  assert.deepEqual(read([bytes('data: a\r'), bytes(''), bytes('\n')], parser), []);
  assert.equal(read([bytes('\r')], parser).length, 1);
});

test('retry is taken from digits alone', () => {
  for (const [value, expected] of [['1500', 1500], ['15s', undefined], ['', undefined], ['-1', undefined]]) {
    const parser = new FrameParser();
    read([bytes(`retry: ${value}\n\n`)], parser);
    assert.equal(parser.retryMs, expected);
  }
});

test('what is no UTF-8 becomes replacement characters', () => {
  const frames = read([bytes('data: '), Uint8Array.of(0xff, 0xf0, 0x9f), bytes('\n\n')]);
  assert.deepEqual(frames.map((frame) => frame.data), ['\uFFFD\uFFFD']);
});

test('a line, and an event of many lines, that do not end are given up', () => {
  const piece = bytes('x'.repeat(1024 * 1024));
  for (const [first, between] of [['data: ', ''], ['data: ', '\ndata: ']]) {
    const parser = new FrameParser();
    parser.feed(bytes(first));
    const feed = () => {
      for (let fed = 0; fed <= MAX_FRAME_LENGTH; fed += piece.length) {
        parser.feed(piece);
        parser.feed(bytes(between));
      }
    };
    assert.throws(feed, { code: 'PROTOCOL_ERROR' });
  }
});
