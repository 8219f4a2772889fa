# Saves a file among the downloads, because a page in an app cannot.
.class public Lorg/mobilenets/camera/Saver;
.super Ljava/lang/Object;

.field private final resolver:Landroid/content/ContentResolver;

.method public constructor <init>(Landroid/content/ContentResolver;)V
    .locals 0
    invoke-direct {p0}, Ljava/lang/Object;-><init>()V
    iput-object p1, p0, Lorg/mobilenets/camera/Saver;->resolver:Landroid/content/ContentResolver;
    return-void
.end method

# Its name and its bytes in base 64; whether it was saved, which wants Android 10.
.method public save(Ljava/lang/String;Ljava/lang/String;)Z
    .locals 4
    .annotation runtime Landroid/webkit/JavascriptInterface;
    .end annotation
    :try_start
    const/4 v0, 0x0
    invoke-static {p2, v0}, Landroid/util/Base64;->decode(Ljava/lang/String;I)[B
    move-result-object v0
    new-instance v1, Landroid/content/ContentValues;
    invoke-direct {v1}, Landroid/content/ContentValues;-><init>()V
    const-string v2, "_display_name"
    invoke-virtual {v1, v2, p1}, Landroid/content/ContentValues;->put(Ljava/lang/String;Ljava/lang/String;)V
    iget-object v2, p0, Lorg/mobilenets/camera/Saver;->resolver:Landroid/content/ContentResolver;
    sget-object v3, Landroid/provider/MediaStore$Downloads;->EXTERNAL_CONTENT_URI:Landroid/net/Uri;
    invoke-virtual {v2, v3, v1}, Landroid/content/ContentResolver;->insert(Landroid/net/Uri;Landroid/content/ContentValues;)Landroid/net/Uri;
    move-result-object v1
    invoke-virtual {v2, v1}, Landroid/content/ContentResolver;->openOutputStream(Landroid/net/Uri;)Ljava/io/OutputStream;
    move-result-object v1
    invoke-virtual {v1, v0}, Ljava/io/OutputStream;->write([B)V
    invoke-virtual {v1}, Ljava/io/OutputStream;->close()V
    :try_end
    .catch Ljava/lang/Throwable; {:try_start .. :try_end} :failed
    const/4 v0, 0x1
    return v0
    :failed
    move-exception v0
    const/4 v0, 0x0
    return v0
.end method
