/* @about@
 *
 * lib@name@.so goes to app/src/main/jniLibs/@abi@, this file to app/src/main/java/mobilenets:
 *
 *     val net = @Name@(640, 480)
 *     val scores = net.run(rgb, 640, 480) // a direct buffer of RGB bytes, row after row
 *     println(net.labels[scores.indices.maxBy { scores[it] }])
 *
 * One network runs one frame at a time. No camera, no Android class: it needs the Java library alone.
 */
package mobilenets

import java.nio.ByteBuffer
import java.nio.ByteOrder

class @Name@(private val maxWidth: Int, private val maxHeight: Int) {
    private val arena: ByteBuffer
    private val made = ByteBuffer.allocateDirect(4 * MOST_VALUES).order(ByteOrder.nativeOrder())

    init {
        val bytes = arenaSize(maxWidth, maxHeight)
        require(bytes in 1..Int.MAX_VALUE) { "$maxWidth × $maxHeight is no size of a frame" }
        arena = ByteBuffer.allocateDirect(bytes.toInt())
        val error = init(arena, maxWidth, maxHeight)
        check(error == 0) { "error $error, see @name@.h" }
    }

    /** Names of the classes in the order of the first output. */
    val labels: List<String> by lazy {
        val text = ByteBuffer.allocateDirect(4096)
        List(@labels@) { index ->
            val bytes = ByteArray(label(index, text))
            text.rewind()
            text.get(bytes)
            String(bytes, Charsets.UTF_8)
        }
    }

    /** The values of an output for a frame; rows of `rgb`, a direct buffer, lie `stride` bytes apart. */
    fun run(rgb: ByteBuffer, width: Int, height: Int, stride: Int = 3 * width, output: Int = 0): FloatArray {
        val error = run(arena, rgb, width, height, stride)
        require(error == 0) { "error $error, see @name@.h" }
        val values = FloatArray(values(arena, output, made))
        made.rewind()
        made.asFloatBuffer().get(values)
        return values
    }

    private external fun arenaSize(width: Int, height: Int): Long
    private external fun init(arena: ByteBuffer, width: Int, height: Int): Int
    private external fun run(arena: ByteBuffer, rgb: ByteBuffer, width: Int, height: Int, stride: Int): Int
    private external fun values(arena: ByteBuffer, output: Int, into: ByteBuffer): Int
    private external fun label(index: Int, into: ByteBuffer): Int

    private companion object {
        const val MOST_VALUES = @most_values@

        init {
            System.loadLibrary("@name@")
        }
    }
}
