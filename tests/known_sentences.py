"""Sentences in many languages, and the encodings that files in each language usually have."""

from __future__ import annotations

from typing import NamedTuple


class Language(NamedTuple):
    text: str
    encodings: tuple[str, ...]


LANGUAGES: dict[str, Language] = {
    "German": Language(
        "Die Rückgabe ist innerhalb von vierzehn Tagen möglich. Größe und Gewicht prüfen wir vor "
        "dem Versand. Schließen Sie das Ventil, bevor Sie die Pumpe öffnen.",
        ("cp1252", "iso-8859-1", "iso-8859-15"),
    ),
    "French": Language(
        "Le délai de livraison a été prolongé à cause de la grève. Où êtes-vous allés l'été "
        "dernier ? Vérifiez le niveau d'huile après chaque arrêt du moteur.",
        ("cp1252", "iso-8859-1"),
    ),
    "Spanish": Language(
        "El año pasado visitamos España. ¿Cuántos días dura la garantía? La máquina está averiada "
        "y el técnico llegará mañana por la mañana.",
        ("cp1252", "iso-8859-1"),
    ),
    "Portuguese": Language(
        "A instalação não começa antes de amanhã. As informações estão disponíveis em português. "
        "A mãe comprou três maçãs e pão na estação.",
        ("cp1252", "iso-8859-1"),
    ),
    "Swedish": Language(
        "Återbetalning sker inom fjorton dagar. Öppna ventilen långsamt och läs av mätaren. "
        "Smörj lagren två gånger om året enligt anvisningen på nästa sida.",
        ("cp1252", "iso-8859-1"),
    ),
    "Polish": Language(
        "Zażółć gęślą jaźń. Zwrot jest możliwy w ciągu czternastu dni. Sprawdź poziom oleju przed "
        "każdym uruchomieniem pompy i zgłoś usterkę do działu obsługi.",
        ("cp1250", "iso-8859-2"),
    ),
    "Czech": Language(
        "Příliš žluťoučký kůň úpěl ďábelské ódy. Vrácení zboží je možné do čtrnácti dnů. Před "
        "spuštěním čerpadla zkontrolujte hladinu oleje a těsnění.",
        ("cp1250", "iso-8859-2"),
    ),
    "Hungarian": Language(
        "Árvíztűrő tükörfúrógép. A visszaküldés tizennégy napon belül lehetséges. A szivattyú "
        "indítása előtt ellenőrizze az olajszintet és a tömítést.",
        ("cp1250", "iso-8859-2"),
    ),
    "Turkish": Language(
        "İade on dört gün içinde mümkündür. Pompayı çalıştırmadan önce yağ seviyesini kontrol "
        "ediniz. Öğrenciler yarın şehir dışına gidecek ve ağaç dikecekler.",
        ("cp1254", "iso-8859-9"),
    ),
    "Russian": Language(
        "Возврат возможен в течение четырнадцати дней. Перед запуском насоса проверьте уровень "
        "масла и состояние прокладки. Сообщите о неисправности в службу поддержки.",
        ("cp1251", "koi8-r", "iso-8859-5", "cp866"),
    ),
    "Ukrainian": Language(
        "Повернення можливе протягом чотирнадцяти днів. Перед запуском насоса перевірте рівень "
        "оливи та ущільнення. Її сім'я живе у Києві, біля річки.",
        ("cp1251", "koi8-u"),
    ),
    "Bulgarian": Language(
        "Връщането е възможно в рамките на четиринадесет дни. Преди пускане на помпата проверете "
        "нивото на маслото и състоянието на уплътнението.",
        ("cp1251",),
    ),
    "Greek": Language(
        "Η επιστροφή είναι δυνατή εντός δεκατεσσάρων ημερών. Πριν από την εκκίνηση της αντλίας "
        "ελέγξτε τη στάθμη του λαδιού και την κατάσταση της φλάντζας.",
        ("cp1253", "iso-8859-7"),
    ),
    "Hebrew": Language(
        "ניתן להחזיר את המוצר בתוך ארבעה עשר ימים. לפני הפעלת המשאבה יש לבדוק את מפלס השמן ואת "
        "מצב האטם. יש לדווח על תקלה לשירות הלקוחות.",
        ("cp1255", "iso-8859-8"),
    ),
    "Arabic": Language(
        "يمكن إرجاع المنتج خلال أربعة عشر يوما. قبل تشغيل المضخة يجب فحص مستوى الزيت وحالة "
        "الحشية. يرجى إبلاغ خدمة العملاء عن أي عطل.",
        ("cp1256", "iso-8859-6"),
    ),
    "Lithuanian": Language(
        "Grąžinti prekę galima per keturiolika dienų. Prieš paleisdami siurblį patikrinkite alyvos "
        "lygį ir tarpiklio būklę. Žiemą čia būna šalta ir vėjuota.",
        ("cp1257", "iso-8859-13"),
    ),
    "Vietnamese": Language(
        "Sản phẩm có thể được trả lại trong vòng mười bốn ngày. Trước khi khởi động máy bơm, hãy "
        "kiểm tra mức dầu và tình trạng của gioăng.",
        (),
    ),
    "Japanese": Language(
        "返品は十四日以内に可能です。ポンプを起動する前に、オイルの量とガスケットの状態を確認して"
        "ください。故障はお客様サービスまでご連絡ください。",
        ("shift_jis", "cp932", "euc-jp", "iso-2022-jp"),
    ),
    "Korean": Language(
        "반품은 십사 일 이내에 가능합니다. 펌프를 가동하기 전에 오일 수위와 개스킷 상태를 "
        "확인하십시오. 고장은 고객 서비스에 알려 주십시오.",
        ("euc-kr", "cp949"),
    ),
    "Chinese (simplified)": Language(
        "商品可以在十四天内退回。启动水泵之前,请检查油位和垫圈的状态。如有故障,请联系客户服务部门。"
        "网关每天午夜重新启动。",
        ("gb2312", "gbk", "gb18030"),
    ),
    "Chinese (traditional)": Language(
        "商品可以在十四天內退回。啟動水泵之前,請檢查油位和墊圈的狀態。如有故障,請聯絡客戶服務部門。"
        "閘道器每天午夜重新啟動。",
        ("big5",),
    ),
    "Thai": Language(
        "สามารถคืนสินค้าได้ภายในสิบสี่วัน ก่อนเริ่มเดินเครื่องปั๊มให้ตรวจสอบระดับน้ำมันและสภาพของปะเก็น "
        "หากมีข้อขัดข้องโปรดแจ้งฝ่ายบริการลูกค้า",
        ("tis-620", "cp874"),
    ),
}
