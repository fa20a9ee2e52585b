// Copyright: sockredir contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Ways of Java to read from a socket, both ends in this process: java Reader ready|available|selector COUNT SECONDS.
// Prints what came. Ends with 3 where it did not come in time.

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.channels.SelectionKey;
import java.nio.channels.Selector;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.Arrays;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.zip.CRC32;

public class Reader {
    static final InetAddress LOCAL = InetAddress.getLoopbackAddress();
    // A thread for each task: the common pool has only one where there are two processors.
    static final ExecutorService THREADS = Executors.newCachedThreadPool();
    static long deadline;

    interface Writer {
        void write(OutputStream out) throws IOException;
    }

    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[1]);
        deadline = System.nanoTime() + Long.parseLong(arguments[2]) * 1_000_000_000L;
        switch (arguments[0]) {
            case "ready" -> ready(count);
            case "available" -> available(count);
            case "selector" -> selector(count);
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        System.exit(0);
    }

    // A connection whose other end is written by a thread and then left open.
    static Socket from(Writer writer) throws IOException {
        ServerSocket listener = new ServerSocket(0, 1, LOCAL);
        Socket reader = new Socket(LOCAL, listener.getLocalPort());
        Socket sender = listener.accept();
        run(() -> writer.write(sender.getOutputStream()));
        return reader;
    }

    interface Task {
        void run() throws IOException;
    }

    static CompletableFuture<Void> run(Task task) {
        return CompletableFuture.runAsync(() -> {
            try {
                task.run();
            } catch (IOException error) {
                error.printStackTrace();
                System.exit(4);
            }
        }, THREADS);
    }

    static void pause(String got) throws InterruptedException {
        if (System.nanoTime() > deadline) {
            System.out.println("only " + got);
            System.exit(3);
        }
        Thread.sleep(1);
    }

    // Lines, read only when ready() says that reading will not block.
    static void ready(int count) throws Exception {
        Socket socket = from(out -> {
            for (int number = 0; number < count; number++) {
                out.write(("line " + number + "\n").getBytes());
            }
        });
        BufferedReader lines = new BufferedReader(new InputStreamReader(socket.getInputStream()));
        int sum = 0;
        for (int got = 0; got < count; got++) {
            while (!lines.ready()) {
                pause(got + " lines");
            }
            sum += lines.readLine().hashCode();
        }
        System.out.println(count + " lines, " + sum);
    }

    // Blocks of any size, in reads as large as available() says.
    static void available(int count) throws Exception {
        Socket socket = from(out -> {
            Random dice = new Random(5);
            for (int number = 0; number < count; number++) {
                out.write(block(dice, 100_000));
            }
        });
        long size = 0;
        Random dice = new Random(5);
        for (int number = 0; number < count; number++) {
            size += block(dice, 100_000).length;
        }
        readAvailable(socket.getInputStream(), size);
    }

    static void readAvailable(InputStream in, long size) throws Exception {
        CRC32 sum = new CRC32();
        for (long got = 0; got < size; ) {
            int there = in.available();
            if (there == 0) {
                pause(got + " of " + size + " bytes");
                continue;
            }
            byte[] part = in.readNBytes(there);
            sum.update(part);
            got += part.length;
        }
        System.out.println(size + " bytes, " + sum.getValue());
    }

    static byte[] block(Random dice, int most) {
        byte[] made = new byte[1 + dice.nextInt(most)];
        dice.nextBytes(made);
        return made;
    }

    // An event loop that sends back what it gets, and four clients that block.
    static void selector(int count) throws Exception {
        ServerSocketChannel listener = ServerSocketChannel.open().bind(new InetSocketAddress(LOCAL, 0));
        run(() -> echo(listener));
        int port = listener.socket().getLocalPort();
        CompletableFuture<?>[] clients = new CompletableFuture<?>[4];
        for (int number = 0; number < clients.length; number++) {
            int seed = number;
            clients[number] = run(() -> ask(port, count, seed));
        }
        while (!CompletableFuture.allOf(clients).isDone()) {
            pause("some answers");
        }
        System.out.println(clients.length + " times " + count + " answers");
    }

    static void ask(int port, int count, int seed) throws IOException {
        Random dice = new Random(seed);
        try (Socket socket = new Socket(LOCAL, port)) {
            for (int number = 0; number < count; number++) {
                byte[] asked = block(dice, 20_000);
                socket.getOutputStream().write(asked);
                if (!Arrays.equals(asked, socket.getInputStream().readNBytes(asked.length))) {
                    throw new IOException("wrong answer " + number);
                }
            }
        }
    }

    static void echo(ServerSocketChannel listener) throws IOException {
        Selector selector = Selector.open();
        listener.configureBlocking(false);
        listener.register(selector, SelectionKey.OP_ACCEPT);
        while (selector.select() >= 0) {
            for (SelectionKey key : selector.selectedKeys()) {
                if (key.isAcceptable()) {
                    SocketChannel made = listener.accept();
                    made.configureBlocking(false);
                    made.register(selector, SelectionKey.OP_READ, ByteBuffer.allocate(1 << 16));
                } else {
                    serve(key);
                }
            }
            selector.selectedKeys().clear();
        }
    }

    static void serve(SelectionKey key) throws IOException {
        SocketChannel channel = (SocketChannel) key.channel();
        ByteBuffer buffer = (ByteBuffer) key.attachment();
        if (key.isReadable() && channel.read(buffer) < 0) {
            channel.close();
            return;
        }
        buffer.flip();
        channel.write(buffer);
        buffer.compact();
        int wanted = buffer.hasRemaining() ? SelectionKey.OP_READ : 0;
        key.interestOps(buffer.position() > 0 ? wanted | SelectionKey.OP_WRITE : wanted);
    }
}
